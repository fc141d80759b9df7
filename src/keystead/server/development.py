"""What keeps ``--dev``, in which everybody is one user, from anybody but programs on the same machine."""

from __future__ import annotations

from typing import Final
from urllib.parse import urlsplit

from starlette.types import ASGIApp, Receive, Scope, Send

from keystead.config.web_urls import LOOPBACK
from keystead.errors import ForbiddenError
from keystead.server.rest.problems import problem_of

CONSOLE: Final = "/console/"
FORM_TYPE: Final = "application/x-www-form-urlencoded"
HOSTS: Final = LOOPBACK
ORIGINS: Final = r"https?://(localhost|127\.0\.0\.1|\[::1\])(:\d{1,5})?"
"""Pages of this machine, which may ask from any port."""


class DevelopmentGuard:
    """Refuses what a browser page from elsewhere, or a name that leads here, would send.

    A page of another site may send text or a form to any address, and an own name may lead to 127.0.0.1: so the Host is
    one of this machine's, a foreign Origin is refused, and a body is JSON by its type.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or pass it on."""
        if scope["type"] == "http" and (told := _refusal(scope)) is not None:
            await problem_of(ForbiddenError(told))(scope, receive, send)
            return
        await self._app(scope, receive, send)


def _refusal(scope: Scope) -> str | None:
    headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
    if _host(f"//{headers.get('host', '')}") not in HOSTS:
        return "in development the service answers to localhost, 127.0.0.1 and [::1] alone"
    origin = headers.get("origin")
    if origin is not None and _host(origin) not in HOSTS:
        return "in development the service takes nothing from a page of another origin"
    kind = headers.get("content-type", "").partition(";")[0].strip().lower()
    # A form of the console shows by itself that one of its pages has sent it.
    taken = FORM_TYPE if scope["path"].startswith(CONSOLE) else "application/json"
    if scope["method"] not in ("GET", "HEAD", "OPTIONS") and kind != taken:
        return f"in development the service takes {taken} alone"
    return None


def _host(url: str) -> str | None:
    try:
        return urlsplit(url).hostname
    except ValueError:
        return None
