"""The application: its routes, and what is opened before the first request and closed after the last."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

from fastapi import FastAPI, Request
from fastapi.middleware.cors import CORSMiddleware
from fastapi.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response

from keystead import __version__
from keystead.config.sources import LoadedSettings
from keystead.errors import KMSError
from keystead.manager.manager import KeyManager
from keystead.ports import Clock
from keystead.server.development import ORIGINS, DevelopmentGuard
from keystead.server.errors import answer_of
from keystead.server.graphql.door import GraphQLDoor
from keystead.server.service import Service, opened

log = logging.getLogger("keystead.server")

_PAGE: Final = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>Keystead</title>
</head><body><main><h1>Keystead {version}</h1>
<p>This is a key service. Clients speak GraphQL to it at <code>POST /graphql</code>.</p>
<ul><li><a href="/schema.graphql">The GraphQL schema</a></li>
<li><a href="/.well-known/keystead-keys">The keys that sign public keys</a></li>
<li><a href="/livez">Whether it lives</a>, and <a href="/readyz">whether it is ready</a></li></ul>
</main></body></html>
"""


def create_app(settings: LoadedSettings, *, is_development: bool = False, clock: Clock | None = None) -> FastAPI:
    """Return the service as an ASGI application; no I/O until it starts.

    Args:
        settings: read by ``keystead.config.service.load_service``.
        is_development: everybody is one user, and nobody but programs of this machine is answered.

    Raises:
        ConfigurationError: settings that no manager can be made of.
    """
    door = GraphQLDoor(is_development=is_development)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with (
            KeyManager.from_config(settings, clock=clock) as km,
            opened(km, settings.settings, is_development=is_development) as service,
        ):
            app.state.service = service
            yield

    app = FastAPI(title="Keystead", version=__version__, lifespan=lifespan, docs_url=None, redoc_url=None)
    origins = [each.strip() for each in settings.settings.server.origins.split(",") if each.strip()]
    if is_development or origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=origins,
            allow_origin_regex=ORIGINS if is_development else None,
            allow_methods=["POST"],
            allow_headers=["Authorization", "Content-Type"],
        )
    if is_development:
        app.add_middleware(DevelopmentGuard)

    @app.post("/graphql", include_in_schema=False)
    async def graphql(request: Request) -> Response:
        return await door.answer(request, _service(request))

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
    async def readyz(request: Request) -> Response:
        try:
            await _service(request).check()
        except KMSError as exc:
            answer = answer_of(exc)
            return JSONResponse({"status": "not ready", "cause": answer.code}, status_code=503)
        return JSONResponse({"status": "ok"})

    @app.get("/", include_in_schema=False)
    async def front() -> Response:
        return HTMLResponse(_PAGE.format(version=__version__))

    return app


def _service(request: Request) -> Service:
    service: Service = request.app.state.service
    return service
