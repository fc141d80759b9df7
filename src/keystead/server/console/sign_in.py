"""Signing in by a token or at an identity provider, and out."""

from __future__ import annotations

from typing import Final
from urllib.parse import urlsplit

from fastapi import Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response

from keystead.access.provider_logins import LONGEST_S, Login
from keystead.access.sessions import NewSession
from keystead.errors import KMSError, UnauthenticatedError
from keystead.server.console.answering import PRIVATE, Room
from keystead.server.console.rendering import render
from keystead.server.console.visits import (
    HOME,
    SIGN_IN,
    NoSessionError,
    cookie_name,
    fields_of,
    forget,
    keep,
    origin_of,
    own_page,
    require_form,
    visit_of,
)
from keystead.server.requests import told_of
from keystead.server.service import Service

SIGN_OUT: Final = "/console/sign-out"
AT_PROVIDER: Final = "/console/sign-in/provider"
BACK: Final = "/console/sign-in/back"
_REFUSED: Final = "this token is not good: it was mistyped, has ended or was revoked"
_REFUSED_THERE: Final = "signing in there did not succeed, or took too long; try again"


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
        return _begun(request, made, then)

    async def to_provider(self, request: Request) -> Response:
        """Have the browser ask at the identity provider."""
        told_of(request.scope).operation = f"console GET {AT_PROVIDER}"
        service: Service = request.app.state.standing.service
        try:
            if service.logins is None:
                raise UnauthenticatedError
            then = own_page(request.query_params.get("next", HOME))
            where, login = await service.logins.begin(origin_of(request) + BACK, then)
        except Exception as exc:
            return self._room.refusal(request, exc, None)
        response = RedirectResponse(where, 303, PRIVATE)
        keep(request, response, login_cookie(request), login.to_text(), LONGEST_S)
        return response

    async def from_provider(self, request: Request) -> Response:
        """Begin a session of whoever comes back from there."""
        told_of(request.scope).operation = f"console GET {BACK}"
        service: Service = request.app.state.standing.service
        login = Login.parse(request.cookies.get(login_cookie(request), ""))
        try:
            if service.logins is None:
                raise UnauthenticatedError
            caller = await service.logins.finish(login, request.query_params, origin_of(request) + BACK)
            made = await service.access.sessions.begin(caller)
            response: Response = _begun(request, made, HOME if login is None else own_page(login.then))
        except UnauthenticatedError:
            response = _form(request, HOME, _REFUSED_THERE, 401)
        except Exception as exc:
            response = self._room.refusal(request, exc, None)
        forget(request, response, login_cookie(request))
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
        forget(request, response, cookie_name(request))
        return response


def login_cookie(request: Request) -> str:
    """Return the name of the cookie of a login at the provider."""
    return f"{cookie_name(request)}-login"


def _form(request: Request, then: str, refused: str | None = None, status: int = 200) -> Response:
    service: Service = request.app.state.standing.service
    provider = None if service.logins is None else urlsplit(service.logins.url).hostname
    values = {"then": then, "refused": refused, "provider": provider, "at_provider": AT_PROVIDER}
    return HTMLResponse(render("sign_in.html", **values), status, PRIVATE)


def _begun(request: Request, made: NewSession, then: str) -> Response:
    response = RedirectResponse(then, 303, PRIVATE)
    keep(request, response, cookie_name(request), "".join(made.text))
    return response
