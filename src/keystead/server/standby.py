"""What is answered while the service is not open."""

from __future__ import annotations

from typing import Any, Final

from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from keystead.server.errors import RETRY_S, Answer, answer_headers, graphql_error
from keystead.server.rest.problems import problem
from keystead.server.standing import Standing
from keystead.server.vault.answers import ROOMS, SEALED, refused

GRAPHQL: Final = "/graphql"
ANSWERED: Final = frozenset(
    {"/livez", "/readyz", *(f"/v1/sys/{each}" for each in ("health", "seal-status", "leader", "init"))}
)
"""What is asked again and again, of a service that is not open too."""
_ANSWER: Final = Answer("UNAVAILABLE", 503, "the service is not open yet; try again, or see /readyz", RETRY_S)


class Standby:
    """Lets requests through to an open service, and counts those that run."""

    def __init__(self, app: ASGIApp, standing: Standing[Any]) -> None:
        self._app = app
        self._standing = standing

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or pass it on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if self._standing.service is None and scope["path"] not in ANSWERED:
            await _refusal(scope["path"])(scope, receive, send)
            return
        with self._standing.running:
            await self._app(scope, receive, send)


def _refusal(path: str) -> Response:
    if path.startswith(ROOMS):
        return refused(_ANSWER.status, SEALED, headers=answer_headers(_ANSWER))
    if path != GRAPHQL:
        return problem(_ANSWER)
    told = {"data": None, "errors": [graphql_error(_ANSWER)]}
    return JSONResponse(told, status_code=_ANSWER.status, headers=answer_headers(_ANSWER))
