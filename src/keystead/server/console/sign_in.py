"""Signing in by a token or at an identity provider, and out: what nobody needs a session for."""

from __future__ import annotations

from typing import Final
from urllib.parse import urlsplit

from fastapi import Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response

from keystead.access.provider_logins import LONGEST_S, Login
from keystead.access.sessions import NewSession
from keystead.errors import UnauthenticatedError
from keystead.server.console.answering import PRIVATE, Answering, Room
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
from keystead.server.service import Service

SIGN_OUT: Final = "/console/sign-out"
AT_PROVIDER: Final = "/console/sign-in/provider"
BACK: Final = "/console/sign-in/back"
_REFUSED: Final = "this token is not good: it was mistyped, has ended or was revoked"
_REFUSED_THERE: Final = "signing in there did not succeed, or took too long; try again"


def ways_in(room: Room) -> list[tuple[str, str, Answering]]:
    """Return path, method and what answers, of each way in and of the way out."""
    finish = room.outside(BACK, from_provider)

    async def finished(request: Request) -> Response:
        response = await finish(request)
        forget(request, response, login_cookie(request))
        return response

    return [
        (SIGN_IN, "GET", room.outside(SIGN_IN, show)),
        (SIGN_IN, "POST", room.outside(SIGN_IN, sign_in)),
        (SIGN_OUT, "POST", room.outside(SIGN_OUT, sign_out)),
        (AT_PROVIDER, "GET", room.outside(AT_PROVIDER, to_provider)),
        (BACK, "GET", finished),
    ]


async def show(request: Request) -> Response:
    """Ask who it is; whoever has signed in is led on."""
    then = own_page(request.query_params.get("next", HOME))
    try:
        await visit_of(request)
    except (NoSessionError, UnauthenticatedError):
        return _form(request, then)
    return RedirectResponse(then, 303, PRIVATE)


async def sign_in(request: Request) -> Response:
    """Begin a session, always a new one: nobody goes on with a session that somebody else has brought."""
    service = _service(request)
    sent = await fields_of(request, service.settings.server.max_body)
    then = own_page(sent.get("next", HOME))
    try:
        made = await service.access.sessions.begin_by_token(sent.get("token", "").strip())
    except UnauthenticatedError:
        return _form(request, then, _REFUSED, 401)
    return _begun(request, made, then)


async def to_provider(request: Request) -> Response:
    """Have the browser ask at the identity provider."""
    logins = _service(request).logins
    if logins is None:
        raise UnauthenticatedError
    where, login = await logins.begin(origin_of(request) + BACK, own_page(request.query_params.get("next", HOME)))
    response = RedirectResponse(where, 303, PRIVATE)
    keep(request, response, login_cookie(request), login.to_text(), LONGEST_S)
    return response


async def from_provider(request: Request) -> Response:
    """Begin a session of whoever comes back from there."""
    service = _service(request)
    login = Login.parse(request.cookies.get(login_cookie(request), ""))
    try:
        if service.logins is None:
            raise UnauthenticatedError
        caller = await service.logins.finish(login, request.query_params, origin_of(request) + BACK)
        made = await service.access.sessions.begin(caller)
    except UnauthenticatedError:
        return _form(request, HOME, _REFUSED_THERE, 401)
    return _begun(request, made, HOME if login is None else own_page(login.then))


async def sign_out(request: Request) -> Response:
    """End the session."""
    try:
        visit = await visit_of(request)
        sent = await fields_of(request, visit.service.settings.server.max_body)
        require_form(visit.sending(sent))
        if visit.session is not None:
            await visit.service.access.sessions.end(visit.session.id)
    except (NoSessionError, UnauthenticatedError):
        pass
    response = RedirectResponse(SIGN_IN, 303, PRIVATE)
    forget(request, response, cookie_name(request))
    return response


def login_cookie(request: Request) -> str:
    """Return the name of the cookie of a login at the provider."""
    return f"{cookie_name(request)}-login"


def _service(request: Request) -> Service:
    service: Service = request.app.state.standing.service
    return service


def _form(request: Request, then: str, refused: str | None = None, status: int = 200) -> Response:
    logins = _service(request).logins
    provider = None if logins is None else urlsplit(logins.url).hostname
    values = {"then": then, "refused": refused, "provider": provider, "at_provider": AT_PROVIDER}
    return HTMLResponse(render("sign_in.html", **values), status, PRIVATE)


def _begun(request: Request, made: NewSession, then: str) -> Response:
    response = RedirectResponse(then, 303, PRIVATE)
    keep(request, response, cookie_name(request), "".join(made.text))
    return response
