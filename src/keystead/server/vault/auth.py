"""``/v1/auth``: logins, and what a token is, for whoever shows it."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

from keystead.access.logins import Login
from keystead.access.token_text import parse_token
from keystead.model import utc_text
from keystead.ports import RoleKind, RoleRecord, TokenRecord
from keystead.server.vault.answers import NOTHING, VaultAnswer, VaultRefusalError
from keystead.server.vault.durations import duration_s, shown
from keystead.server.vault.request import OpenRequest, OpenWay, VaultPath, VaultRequest, Way

_NOT_OURS: Final = "this token is not one of the store: whoever issues it renews and revokes it"
_META: Final = {RoleKind.APPROLE: "role_name", RoleKind.JWT: "role"}


async def approle_login(request: OpenRequest) -> VaultAnswer:
    """Log in by ``role_id`` and ``secret_id``."""
    role_id, secret_id = text_of(request.body, "role_id"), text_of(request.body, "secret_id")
    if not role_id:
        raise VaultRefusalError(400, "missing role_id")
    if not secret_id:
        raise VaultRefusalError(400, "missing secret_id")
    return _logged_in(await request.service.access.logins.approle(role_id, secret_id, tenant=request.tenant))


async def jwt_login(request: OpenRequest) -> VaultAnswer:
    """Log in by ``role`` and ``jwt``."""
    role, jwt = text_of(request.body, "role"), text_of(request.body, "jwt")
    if not role:
        raise VaultRefusalError(400, "missing role")
    if not jwt:
        raise VaultRefusalError(400, "missing token")
    return _logged_in(await request.service.access.logins.jwt(role, jwt, tenant=request.tenant or ""))


async def no_kubernetes_login(request: OpenRequest) -> VaultAnswer:
    """Refuse it."""
    raise VaultRefusalError(
        400,
        "Kubernetes login is not supported: make a JWT role by the public key of the cluster's service accounts, "
        "and send the service account's token to auth/jwt/login",
    )


async def no_token_create(request: VaultRequest) -> VaultAnswer:
    """Refuse it."""
    raise VaultRefusalError(400, "tokens are made by `keystead token create` or POST /v1/tokens, not by this protocol")


async def lookup_self(request: VaultRequest) -> VaultAnswer:
    """Tell what the token of the request is, and for how long."""
    now = request.service.now()
    row = await _row(request)
    if row is None:
        scopes = " ".join(sorted((*request.caller.scopes, *request.caller.transit.scopes)))
        who = request.caller.principal
        row = TokenRecord("", who.user, who.tenant, scopes, who.user, utc_text(now), None, 0, b"")
    return VaultAnswer(data=_token(row, await _role(request, row), request.token, now))


async def renew_self(request: VaultRequest) -> VaultAnswer:
    """Have the token of the request end later, by ``increment`` or by the time that it was made for."""
    increment_s = duration_s("increment", request.body.get("increment"))
    if await _row(request) is None:
        raise VaultRefusalError(400, _NOT_OURS)
    renewed = await request.service.tokens.renew(request.token, increment_s or None)
    warnings = []
    if renewed.asked_s is not None:
        asked, most = shown(renewed.asked_s), shown(renewed.ttl_s)
        warnings = [f'TTL of "{asked}" exceeded the effective max_ttl of "{most}"; TTL value is capped accordingly']
    role = await _role(request, renewed.row)
    return VaultAnswer(auth=_auth(renewed.row, role, request.token, renewed.ttl_s), warnings=warnings)


async def revoke_self(request: VaultRequest) -> VaultAnswer:
    """Have the token of the request be refused from now on."""
    row = await _row(request)
    if row is None:
        raise VaultRefusalError(400, _NOT_OURS)
    await request.service.tokens.revoke(row.id)
    return NOTHING


_INCREMENT: Final = frozenset({"increment"})
PATHS: Final = (
    VaultPath("/auth/approle/login", write=OpenWay(approle_login)),
    VaultPath("/auth/jwt/login", write=OpenWay(jwt_login)),
    VaultPath("/auth/kubernetes/login", write=OpenWay(no_kubernetes_login)),
    VaultPath("/auth/token/lookup-self", read=Way(lookup_self), write=Way(lookup_self)),
    VaultPath("/auth/token/renew-self", write=Way(renew_self, fields=_INCREMENT)),
    VaultPath("/auth/token/revoke-self", write=Way(revoke_self)),
    VaultPath("/auth/token/create", write=Way(no_token_create)),
)


def text_of(body: Mapping[str, Any], name: str) -> str:
    """Return a parameter that is a text; empty where it is not there.

    Raises:
        VaultRefusalError: it is something else.
    """
    value = body.get(name)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise VaultRefusalError(400, f'Field validation failed: the field "{name}" is no text')
    return value


def _logged_in(login: Login) -> VaultAnswer:
    row, ttl_s = login.token.row, login.rules.token_ttl_s
    return VaultAnswer(auth=_auth(row, login.role, "".join(login.token.text), ttl_s))


async def _row(request: VaultRequest) -> TokenRecord | None:
    """Return the row of the request's token; None for an issuer's, and for none under ``--dev``."""
    parts = parse_token(request.token)
    return None if parts is None else await request.service.tokens.get(parts.id)


async def _role(request: VaultRequest, row: TokenRecord) -> RoleRecord | None:
    return None if row.role_id is None else await request.service.access.roles.find(row.role_id)


def _auth(row: TokenRecord, role: RoleRecord | None, text: str, ttl_s: int) -> dict[str, Any]:
    scopes = row.scopes.split(" ")
    return {
        "client_token": text,
        "accessor": row.id,
        "policies": scopes,
        "token_policies": scopes,
        "metadata": _meta(role),
        "lease_duration": ttl_s,
        "renewable": row.ends_by is not None,
        "entity_id": "",
        "token_type": "service",
        "orphan": True,
        "mfa_requirement": None,
        "num_uses": row.uses or 0,
    }


def _token(row: TokenRecord, role: RoleRecord | None, text: str, now: datetime) -> dict[str, Any]:
    made = datetime.fromisoformat(row.created_at)
    ends = None if row.expires_at is None else datetime.fromisoformat(row.expires_at)
    whole_s = row.ttl_s or (0 if ends is None else round((ends - made).total_seconds()))
    told = {
        "accessor": row.id,
        "creation_time": int(made.timestamp()),
        "creation_ttl": whole_s,
        # Of logins as Vault has them: the method, and who it was where the method knows.
        "display_name": row.label or "token",
        "entity_id": "",
        "expire_time": row.expires_at,
        "explicit_max_ttl": 0,
        "id": text,
        "issue_time": row.created_at,
        "meta": _meta(role),
        # Of one that was shown for the last time -1, for 0 is that of one without a number.
        "num_uses": 0 if row.uses is None else (row.uses - row.used or -1),
        "orphan": True,
        "path": "auth/token/create" if role is None else f"auth/{role.kind.value}/login",
        "policies": row.scopes.split(" "),
        "renewable": row.ends_by is not None,
        "ttl": 0 if ends is None else max(0, int((ends - now).total_seconds())),
        "type": "service",
    }
    return told | ({"namespace_path": f"{row.tenant}/"} if row.tenant else {})


def _meta(role: RoleRecord | None) -> dict[str, str] | None:
    return None if role is None else {_META[role.kind]: role.name}
