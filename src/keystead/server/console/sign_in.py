"""Signing in by a token, and out."""

from __future__ import annotations

from typing import Final

from fastapi import Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response

from keystead.errors import KMSError, UnauthenticatedError
from keystead.server.console.answering import PRIVATE, Room
from keystead.server.console.rendering import render
from keystead.server.console.visits import (
    HOME,
    SIGN_IN,
    NoSessionError,
    cookie_name,
    fields_of,
    is_encrypted,
    own_page,
    require_form,
    visit_of,
)
from keystead.server.requests import told_of
from keystead.server.service import Service

SIGN_OUT: Final = "/console/sign-out"
_REFUSED: Final = "this token is not good: it was mistyped, has ended or was revoked"


class SignIn:
    """The pages that nobody needs a session for."""

    def __init__(self, room: Room) -> None:
        self._room = room

    async def show(self, request: Request) -> Response:
        """Ask who it is; whoever has signed in is led on."""
        told_of(request.scope).operation = f"console GET {SIGN_IN}"
        try:
            await visit_of(request)
        except (NoSessionError, UnauthenticatedError):
            return _form(request, own_page(request.query_params.get("next", HOME)))
        except KMSError as exc:
            return self._room.refusal(request, exc, None)
        return RedirectResponse(own_page(request.query_params.get("next", HOME)), 303, PRIVATE)

    async def sign_in(self, request: Request) -> Response:
        """Begin a session. One that there was ends: nobody brings a session that somebody else has begun."""
        told_of(request.scope).operation = f"console POST {SIGN_IN}"
        service: Service = request.app.state.standing.service
        try:
            sent = await fields_of(request, service.settings.server.max_body)
            then = own_page(sent.get("next", HOME))
            try:
                made = await service.access.sessions.begin_by_token(sent.get("token", "").strip())
            except UnauthenticatedError:
                return _form(request, then, _REFUSED, 401)
        except Exception as exc:
            return self._room.refusal(request, exc, None)
        response = RedirectResponse(then, 303, PRIVATE)
        response.set_cookie(
            cookie_name(request),
            "".join(made.text),
            path="/",
            secure=is_encrypted(request),
            httponly=True,
            samesite="lax",
        )
        return response

    async def sign_out(self, request: Request) -> Response:
        """End the session."""
        told_of(request.scope).operation = f"console POST {SIGN_OUT}"
        response = RedirectResponse(SIGN_IN, 303, PRIVATE)
        try:
            visit = await visit_of(request)
            sent = await fields_of(request, visit.service.settings.server.max_body)
            require_form(visit.sending(sent))
            if visit.session is not None:
                await visit.service.access.sessions.end(visit.session.id)
        except (NoSessionError, UnauthenticatedError):
            pass
        except Exception as exc:
            return self._room.refusal(request, exc, None)
        response.delete_cookie(cookie_name(request), path="/", secure=is_encrypted(request), httponly=True)
        return response


def _form(request: Request, then: str, refused: str | None = None, status: int = 200) -> Response:
    return HTMLResponse(render("sign_in.html", then=then, refused=refused), status, PRIVATE)
