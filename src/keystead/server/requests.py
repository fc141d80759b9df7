"""What is told of each request: its operation and how it came out, and nothing that anybody has sent."""

from __future__ import annotations

from collections.abc import MutableMapping
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any, Final

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from keystead import telemetry
from keystead.server.request_log import OK, Lines, request_id
from keystead.server.standby import ANSWERED

OTHER: Final = "other"
"""The operation of what names none, or several."""
_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"})
_CODES: Final = {
    400: "BAD_USER_INPUT",
    401: "UNAUTHENTICATED",
    403: "FORBIDDEN",
    404: "NOT_FOUND",
    409: "CONFLICT",
    413: "TOO_LARGE",
    429: "RATE_LIMITED",
    500: "INTERNAL_SERVER_ERROR",
    503: "UNAVAILABLE",
}
_KEY: Final = "keystead.told"


@dataclass(slots=True)
class Told:
    """What is known of a request while it runs; a route that knows better than path and status says so here.

    Attributes:
        id: as ``X-Request-Id`` has it, or drawn; answered in the same header.
        operation: of the schema; None for that of the route.
        code: how it came out; None for that of the status.
    """

    id: str = field(default_factory=request_id)
    operation: str | None = None
    code: str | None = None


def told_of(scope: MutableMapping[str, Any]) -> Told:
    """Return what is told of a request, to be filled in."""
    told: Told | None = scope.get(_KEY)
    if told is None:
        told = scope[_KEY] = Told()
    return told


class Requests:
    """Counts, measures, traces and logs requests."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._lines = Lines()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on."""
        if scope["type"] != "http":
            try:
                await self._app(scope, receive, send)
            finally:
                # What is no request is the whole life of the service.
                self._lines.log()
            return
        headers = Headers(scope=scope)
        told, begun, status = told_of(scope), perf_counter(), 500
        if given := headers.get("x-request-id"):
            told.id = request_id(given)

        async def sending(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message.get("headers", ()), (b"x-request-id", told.id.encode("ascii"))]
            await send(message)

        with telemetry.request_span("request", headers) as span:
            try:
                await self._app(scope, receive, sending)
            finally:
                duration_s = perf_counter() - begun
                operation = told.operation or _route(scope)
                code = told.code or _code(status)
                telemetry.request(operation, code, duration_s)
                if code != OK or scope["path"] not in ANSWERED:
                    self._lines.add(told.id, operation, code, duration_s)
                if span is not None:
                    span.update_name(operation)
                    span.set_attributes({"keystead.operation": operation, "keystead.code": code})
                    span.set_attributes({"keystead.request_id": told.id, "http.response.status_code": status})


def _code(status: int) -> str:
    return OK if status < 400 else _CODES.get(status, "REFUSED" if status < 500 else "FAILED")


def _route(scope: Scope) -> str:
    """Return the route that answers, as it is declared; a path that a client has made up is none."""
    path = getattr(scope.get("route"), "path", None)
    return f"{scope['method']} {path}" if path is not None and scope["method"] in _METHODS else OTHER
