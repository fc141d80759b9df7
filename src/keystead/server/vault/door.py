"""What every request of the wire protocol passes before its endpoint sees it: who calls, of which tenant, with what."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from keystead.access.callers import Caller
from keystead.errors import RateLimitedError, UnauthenticatedError
from keystead.server.actors import on_behalf_of
from keystead.server.errors import retry_header
from keystead.server.requests import Told, told_of
from keystead.server.service import Service
from keystead.server.standing import Standing
from keystead.server.vault.answers import DENIED, NO_WRAPPING, VaultRefusalError, many, refusal_of, refused, response_of
from keystead.server.vault.limits import Limits
from keystead.server.vault.parameters import parameters
from keystead.server.vault.request import ROOT, OpenRequest, OpenWay, VaultPath, VaultRequest, Verb, Way

log = logging.getLogger("keystead.server")

TOKEN: Final = "x-vault-token"  # noqa: S105 -- a header's name
NAMESPACE: Final = "x-vault-namespace"
WRAP: Final = "x-vault-wrap-ttl"
LOGINS: Final = "logins"
_REPLACED: Final = "Endpoint replaced the value of these parameters with the values captured from the endpoint's path"
MAX_OPEN_BODY: Final = 64 * 1024
"""What is read of somebody who has shown no token."""
METHODS: Final = frozenset({"token", "approle", "jwt", "kubernetes"})
"""What ``auth`` has something of."""
_MERGE_PATCH: Final = "application/merge-patch+json"
_VERBS: Final = {
    "GET": Verb.READ,
    "HEAD": Verb.READ,
    "POST": Verb.WRITE,
    "PUT": Verb.WRITE,
    "LIST": Verb.LIST,
    "DELETE": Verb.DELETE,
}
_TRUE: Final = frozenset({"1", "t", "T", "TRUE", "true", "True"})


class Door:
    """Answers requests to one path."""

    def __init__(self, path: VaultPath, standing: Standing[Service], limits: Limits) -> None:
        self._path = path
        self._standing = standing
        self._limits = limits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        told = told_of(scope)
        try:
            response = await self._answer(Request(scope, receive), told)
        except Exception as exc:
            response = refusal_of(exc)
            if response.status_code >= 500:
                log.exception("a request failed")
        if scope["method"] == "HEAD":
            response.body = b""
        await response(scope, receive, send)

    async def _answer(self, http: Request, told: Told) -> Response:
        method = http.method
        verb = _VERBS.get(method)
        if verb is Verb.READ and http.query_params.get("list") in _TRUE:
            verb = Verb.LIST
        told.operation = f"{verb or 'other'} /v1{self._path.template}"
        way = None if verb is None else self._path.way(verb)
        if isinstance(way, OpenWay):
            _refuse_wrapping(http)
            if verb is Verb.WRITE and (service := self._standing.service) is not None:
                self._limit(http, LOGINS, service.settings.machine.max_logins)
            body = await parameters(http, MAX_OPEN_BODY) if verb is Verb.WRITE else {}
            return response_of(await way.answer(OpenRequest(http, self._standing, _namespace(http), body)), told.id)
        service = self._standing.service
        if service is None:
            raise UnauthenticatedError
        token = shown_token(http)
        caller = await authenticated(service, token)
        require_namespace(_namespace(http), caller)
        self._limit(http, caller.origin, service.settings.machine.max_requests)
        if verb is None or way is None or method == "HEAD":
            return self._no_way(http, verb)
        name = http.path_params.get("name", "")
        if way.operation is not None and not caller.may_transit(way.operation, name):
            return refused(403, many(DENIED))
        _refuse_wrapping(http)
        body = await parameters(http) if verb is Verb.WRITE else {}
        return await _done(way, VaultRequest(http, service, caller, verb, name, body, token), told.id)

    def _limit(self, http: Request, name: str, rate: int) -> None:
        try:
            self._limits.take(name, rate, self._standing.monotonic())
        except RateLimitedError as exc:
            path = http.url.path.removeprefix("/v1/")
            raise VaultRefusalError(
                429, f'request path "{path}": {exc}', headers=retry_header(exc.retry_after_s)
            ) from None

    def _no_way(self, http: Request, verb: Verb | None) -> Response:
        if http.method == "OPTIONS":
            return refused(400, "cannot handle internal-only request operation")
        if http.method == "PATCH":
            kind = http.headers.get("content-type", "")
            if kind.partition(";")[0].strip().lower() != _MERGE_PATCH:
                return refused(415, f"PATCH requires Content-Type of {_MERGE_PATCH}, provided {kind[:100]}")
        elif verb is None:
            return refused(405)
        if not any(self._path.way(each) for each in Verb):
            return _no_path(http.url.path.removeprefix("/v1/"), verb)
        if verb is Verb.LIST:
            return refused(404, many("unsupported path"))
        return refused(405, many("unsupported operation"))


async def _done(way: Way, request: VaultRequest, request_id: str) -> Response:
    with on_behalf_of(request.caller):
        answer = await way.answer(request)
    return response_of(answer, request_id, _unread(way, request.body))


def _unread(way: Way, body: Mapping[str, Any]) -> list[str]:
    """Return warnings of parameters that counted for nothing."""
    if way.fields is None or not body or body.keys() <= way.fields:
        return []
    unknown = sorted(body.keys() - way.fields - way.captured)
    replaced = sorted(name for name in body.keys() & way.captured if body[name] is not None)
    warnings = [f"Endpoint ignored these unrecognized parameters: [{' '.join(unknown)}]"] if unknown else []
    return [*warnings, f"{_REPLACED}: [{' '.join(replaced)}]"] if replaced else warnings


def _no_path(path: str, verb: Verb | None) -> Response:
    if verb is Verb.WRITE and path.endswith("/"):
        return refused(400, "cannot write to a path ending in '/'")
    room, _, method = path.partition("/")
    if room == "auth" and method.partition("/")[0] not in METHODS:
        return refused(404, f'no handler for route "{path}". route entry not found.')
    return refused(404, many("unsupported path"))


def shown_token(http: Request) -> str:
    """Return the token that a request shows; empty where it shows none."""
    shown = http.headers.get(TOKEN)
    if shown:
        return shown
    kind, _, text = http.headers.get("authorization", "").partition(" ")
    return text.strip() if kind.lower() == "bearer" else ""


async def authenticated(service: Service, token: str) -> Caller:
    """Return who shows a token; errors as ``Service.caller``."""
    return await service.caller(f"Bearer {token}" if token else None, None)


def require_namespace(named: str, caller: Caller) -> None:
    """Raise a refusal if another tenant is named than the caller's; one that names none means its own."""
    tenant = caller.principal.tenant
    if named not in ("", tenant) and not (named == ROOT and not tenant):
        raise VaultRefusalError(403, many(DENIED))


def _namespace(http: Request) -> str:
    """Return the namespace that is named; HTTP has its bytes as Latin-1, and they are UTF-8."""
    named = http.headers.get(NAMESPACE, "").strip("/")
    try:
        return named if named.isascii() else named.encode("latin-1").decode("utf-8")
    except UnicodeError:
        raise VaultRefusalError(400, "X-Vault-Namespace is text in UTF-8") from None


def _refuse_wrapping(http: Request) -> None:
    if http.headers.get(WRAP) not in (None, "", "0"):
        raise VaultRefusalError(400, NO_WRAPPING)
