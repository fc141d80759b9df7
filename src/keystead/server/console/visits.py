"""Visits: who looks at a page or sends a form, and that it was they who sent it."""

from __future__ import annotations

import hmac
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Final
from urllib.parse import parse_qsl, quote, urlsplit

from fastapi import Request, Response

from keystead.access.callers import Scope
from keystead.access.sessions import Session
from keystead.access.transit_scopes import ANY, KEYLESS, PREFIX, TransitOperation
from keystead.errors import ForbiddenError, InvalidInputError
from keystead.server.admin import Admin
from keystead.server.body import read_body
from keystead.server.development import FORM_TYPE
from keystead.server.service import DEVELOPMENT, Service

SIGN_IN: Final = "/console/sign-in"
HOME: Final = "/"
FORM: Final = "form"
"""The field of a form that shows that it is of the session."""
MAX_FIELDS: Final = 100
_OF_THIS_PROCESS: Final = secrets.token_hex(32)
"""What forms carry under ``--dev``, where nobody has a session."""
_PAGE: Final = re.compile(r"/(console(/[\w.~%@:+,-]+)*(\?[\w.~%@:+,=&-]*)?)?", re.ASCII)


class NoSessionError(Exception):
    """Nobody has signed in, or the session has ended."""


@dataclass(frozen=True, slots=True)
class Visit(Admin):
    """A page that is asked for, or a form that was sent.

    Attributes:
        session: None under ``--dev``.
        form: what each form of the page carries.
        fields: of the form that was sent.
    """

    request: Request
    session: Session | None
    form: str
    fields: Mapping[str, str] = field(default_factory=dict)

    def may(self, scope: Scope | None, *, is_of_store: bool = False) -> bool:
        """Whether the visitor may see or do what takes a scope."""
        return (scope is None or scope in self.by.scopes) and not (is_of_store and self.tenant is not None)

    @property
    def transit_key(self) -> str | None:
        """The Transit key that the page's path names, or else the form that was sent; None where neither does."""
        named = self.request.path_params.get("transit") or self.fields.get("name", "").strip()
        return named or None

    def may_transit(self, operation: TransitOperation, key: str | None = None) -> bool:
        """Whether the visitor may do an operation of the engine: on a key, or on any at all where none is named."""
        if key is None and operation not in KEYLESS:
            return self.by.transit.allow_some(operation)
        return self.by.may_transit(operation, key or "")

    def require_transit(self, operation: TransitOperation) -> None:
        """Raise ``ForbiddenError`` unless the visitor may do an operation on the key that the visit is about."""
        key = self.transit_key
        if not self.may_transit(operation, key):
            raise ForbiddenError(f"this takes a scope such as {PREFIX}{operation}:{key or ANY}")

    def sending(self, fields: Mapping[str, str]) -> Visit:
        """Return the visit with a form that was sent."""
        return replace(self, fields=fields)

    def path(self, name: str) -> str:
        """Return a parameter of the page's path."""
        return str(self.request.path_params[name])


async def visit_of(request: Request) -> Visit:
    """Return who visits.

    Raises:
        NoSessionError: nobody has signed in.
        KMSError: it could not be found out.
    """
    service: Service = request.app.state.standing.service
    if service.is_development:
        return Visit(service, DEVELOPMENT, request, None, _OF_THIS_PROCESS)
    text = request.cookies.get(cookie_name(request))
    if text is None:
        raise NoSessionError
    session = await service.access.sessions.authenticate(text)
    return Visit(service, session.caller, request, session, session.form)


def cookie_name(request: Request) -> str:
    """Return the name of the session's cookie: over TLS one that no other host can set, and no plain page."""
    return "__Host-keystead" if is_encrypted(request) else "keystead"


def origin_of(request: Request) -> str:
    """Return the origin that the console's pages have in a browser."""
    service: Service = request.app.state.standing.service
    return service.settings.server.url or f"{request.url.scheme}://{request.headers.get('host', '')}"


def is_encrypted(request: Request) -> bool:
    """Whether the browser reaches the console over TLS."""
    return origin_of(request).startswith("https:")


async def fields_of(request: Request, most: int) -> dict[str, str]:
    """Return what a form of this service has sent; of a field that was sent twice, the last.

    Raises:
        ForbiddenError: a page of another site sent it.
        InvalidInputError: it is no form.
        BodyTooLargeError: it is longer than ``most`` bytes.
    """
    require_own_page(request)
    body = await read_body(request, most)
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != FORM_TYPE:
        raise InvalidInputError(f"a form is {FORM_TYPE}")
    try:
        pairs = parse_qsl(
            body.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=MAX_FIELDS, separator="&"
        )
    except ValueError:
        raise InvalidInputError("this is no form that the console has sent") from None
    return dict(pairs)


def require_own_page(request: Request) -> None:
    """Raise ``ForbiddenError`` where a browser says that a page of another site has sent this."""
    site = request.headers.get("sec-fetch-site")
    origin = request.headers.get("origin")
    if site not in (None, "same-origin", "none") or origin not in (None, origin_of(request)):
        raise ForbiddenError(
            "a page of another site has sent this; open the console itself. Behind a proxy, server.url names the "
            "address that browsers reach it at"
        )


def require_form(visit: Visit) -> None:
    """Raise ``ForbiddenError`` unless a form that was sent is of this session."""
    if not hmac.compare_digest(visit.fields.get(FORM, "").encode(), visit.form.encode()):
        raise ForbiddenError("this form is of a session that has ended; open the page again and repeat it")


def sign_in_for(request: Request) -> str:
    """Return where whoever asks for a page signs in first."""
    asked = request.url.path + (f"?{request.url.query}" if request.url.query else "")
    return SIGN_IN if request.method != "GET" or asked == HOME else f"{SIGN_IN}?next={quote(asked, safe='')}"


def own_page(text: str) -> str:
    """Return a page of the console as an address that was sent names it; the first page where it names none."""
    parts = urlsplit(text)
    is_one = not parts.scheme and not parts.netloc and _PAGE.fullmatch(text) and ".." not in parts.path.split("/")
    return text if is_one else HOME


def keep(request: Request, response: Response, name: str, value: str, max_age_s: int | None = None) -> None:
    """Have the browser keep a cookie that no script reads, and that a page of another site sends by a link alone."""
    secure = is_encrypted(request)
    response.set_cookie(name, value, max_age_s, path="/", secure=secure, httponly=True, samesite="lax")


def forget(request: Request, response: Response, name: str) -> None:
    """Have the browser forget a cookie."""
    response.delete_cookie(name, path="/", secure=is_encrypted(request), httponly=True, samesite="lax")
