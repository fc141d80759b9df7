"""The administration's routes, put together, and added to the application."""

from __future__ import annotations

from typing import Final

from fastapi import APIRouter, FastAPI
from starlette.exceptions import HTTPException
from starlette.responses import PlainTextResponse, Response

from keystead.server import error_page
from keystead.server.rest import (
    approvals,
    audit,
    devices,
    jobs,
    keyrings,
    keys,
    lockouts,
    roles,
    sessions,
    tokens,
    wishes,
)
from keystead.server.rest.answers import answers
from keystead.server.rest.door import AdminRoute
from keystead.server.rest.openapi import document
from keystead.server.rest.paths import register_names
from keystead.server.rest.problems import refuses

PREFIX: Final = "/v1"
_ROOMS: Final = (keyrings, keys, tokens, roles, approvals, sessions, devices, lockouts, jobs, wishes, audit)


def new_router() -> APIRouter:
    """Return every route of the administration."""
    register_names()
    router = APIRouter(prefix=PREFIX, route_class=AdminRoute, responses=answers())
    for room in _ROOMS:
        room.register(router)
    return router


def add_rest(app: FastAPI) -> None:
    """Add the administration, what describes it, and what answers where there is no route."""
    router = new_router()
    app.include_router(router)
    app.add_exception_handler(HTTPException, refuses(router))
    # A path with a slash too many is none: an answer elsewhere would be one that no document declares.
    app.router.redirect_slashes = False

    def described() -> dict[str, object]:
        return document(router)

    app.openapi = described  # type: ignore[method-assign]

    @app.get(error_page.PATH, include_in_schema=False)
    async def errors() -> Response:
        return PlainTextResponse(error_page.page(), media_type="text/markdown")
