"""The application: its routes, and what is opened before the first request and closed after the last."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from functools import partial
from typing import Any

from fastapi import FastAPI, Request
from fastapi.middleware.cors import CORSMiddleware
from fastapi.responses import JSONResponse, PlainTextResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from keystead import __version__
from keystead.config.sources import LoadedSettings
from keystead.errors import ConfigurationError, KMSError
from keystead.ports import Clock
from keystead.runtime.clock import SystemClock
from keystead.server.console.router import add_console
from keystead.server.development import ORIGINS, DevelopmentGuard
from keystead.server.draining import draining
from keystead.server.errors import RETRY_S, retry_header
from keystead.server.graphql.door import GraphQLDoor, GraphQLRoute
from keystead.server.metrics import NONE_HERE, metrics_text, registry
from keystead.server.opening import opened_manager
from keystead.server.requests import Requests
from keystead.server.rest.problems import problem_of
from keystead.server.rest.router import add_rest
from keystead.server.service import Service, opened
from keystead.server.standby import Standby
from keystead.server.standing import Standing, end_process
from keystead.server.vault.router import VaultRoutes

Beside = Callable[[Service], AbstractAsyncContextManager[None]]


def create_app(
    settings: LoadedSettings,
    *,
    is_development: bool = False,
    clock: Clock | None = None,
    worker: str | None = None,
    beside: Beside | None = None,
) -> FastAPI:
    """Return the service as an ASGI application; no I/O until it starts.

    Args:
        settings: read by ``keystead.config.service.load_service``.
        is_development: everybody is one user, and nobody but programs of this machine is answered.
        worker: which of several processes on one port this is.
        beside: what goes on beside the open service, for as long as its context lasts.

    It listens and answers at once, and is opened beside that, however long it takes; see ``Standing``. Settings that no
    service can be made of end the process.

    Raises:
        ConfigurationError: development, and the settings say production.
    """
    if is_development and settings.settings.is_production:
        raise ConfigurationError("--dev lets everybody in, and KEYSTEAD_ENV says production: leave one of them out")
    door = GraphQLDoor(is_development=is_development)
    clock = clock or SystemClock()
    standing = Standing(partial(_opening, settings, clock, is_development=is_development, beside=beside), clock)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with standing.opened() as opening:
            app.state.opening = opening
            opening.add_done_callback(end_process)
            with draining(standing, least_s=settings.settings.server.drain.total_seconds()):
                try:
                    yield
                except asyncio.CancelledError:
                    # Of ``end_process``, which has told why: the server need not tell where.
                    if standing.failure is None:
                        raise

    origins = [each.strip() for each in settings.settings.server.origins.split(",") if each.strip()]

    def behind(routes: ASGIApp) -> ASGIApp:
        app: ASGIApp = Standby(GraphQLRoute(VaultRoutes(routes, standing), door, standing), standing)
        if is_development or origins:
            app = CORSMiddleware(
                app,
                allow_origins=origins,
                allow_origin_regex=ORIGINS if is_development else None,
                allow_methods=["POST"],
                allow_headers=["Authorization", "Content-Type"],
            )
        return Requests(DevelopmentGuard(app) if is_development else app)

    app = _Application(
        title="Keystead",
        version=__version__,
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        # What FastAPI measures and logs by itself has the texts of exceptions in it.
        telemetry={"tracing": False, "metrics": False, "logs": False, "operation_spans": False},
    )
    app.layers = behind(app.routed)
    app.state.standing = standing
    collected = registry(worker)

    add_rest(app)
    add_console(app)

    @app.get("/schema.graphql", include_in_schema=False)
    async def schema() -> Response:
        return PlainTextResponse(door.sdl)

    @app.get("/.well-known/keystead-keys")
    async def keys(request: Request) -> dict[str, Any]:
        return {"algorithm": "Ed25519", "keys": _service(request).identity.public_keys()}

    @app.get("/livez")
    async def livez() -> dict[str, str]:
        return {"status": "ok"}

    @app.get("/readyz")
    async def readyz() -> Response:
        causes = await standing.causes()
        if not causes:
            return JSONResponse({"status": "ok"})
        status = "stopping" if standing.is_stopping else "not ready"
        told = {"status": status, "causes": [each.as_dict() for each in causes]}
        return JSONResponse(told, status_code=503, headers=retry_header(RETRY_S))

    @app.get("/metrics", include_in_schema=False)
    async def metrics(request: Request) -> Response:
        if collected is None:
            return PlainTextResponse(NONE_HERE, status_code=404)
        try:
            authorization = request.headers.get("authorization")
            text, kind = await metrics_text(_service(request), authorization, collected)
        except KMSError as exc:
            return problem_of(exc)
        return Response(text, media_type=kind)

    return app


class _Application(FastAPI):
    """An application whose layers stand around FastAPI and its own, which are for what is routed by it alone."""

    layers: ASGIApp

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request through the layers."""
        await self.layers(scope, receive, send)

    async def routed(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Have FastAPI route a request."""
        await super().__call__(scope, receive, send)


@asynccontextmanager
async def _opening(
    settings: LoadedSettings, clock: Clock, *, is_development: bool, beside: Beside | None
) -> AsyncIterator[Service]:
    async with (
        opened_manager(settings, clock) as km,
        opened(km, settings, is_development=is_development) as service,
        nullcontext() if beside is None else beside(service),
    ):
        yield service


def _service(request: Request) -> Service:
    """Return the open service; ``Standby`` lets nothing through before."""
    service: Service = request.app.state.standing.service
    return service
