"""``/v1/auth``: what a token is, for whoever shows it."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final

from keystead.access.token_text import parse_token
from keystead.model import utc_text
from keystead.ports import TokenRecord
from keystead.server.vault.answers import VaultAnswer
from keystead.server.vault.request import VaultPath, VaultRequest, Way


async def lookup_self(request: VaultRequest) -> VaultAnswer:
    """Tell what the token of the request is, and for how long."""
    parts = parse_token(request.token)
    if parts is None:
        return VaultAnswer(data=_of_others(request))
    row = await request.service.tokens.get(parts.id)
    return VaultAnswer(data=_token(row, request.token, request.service.now()))


PATHS: Final = (VaultPath("/auth/token/lookup-self", read=Way(lookup_self), write=Way(lookup_self)),)


def _token(row: TokenRecord, text: str, now: datetime) -> dict[str, Any]:
    made = datetime.fromisoformat(row.created_at)
    ends = None if row.expires_at is None else datetime.fromisoformat(row.expires_at)
    told = {
        "accessor": row.id,
        "creation_time": int(made.timestamp()),
        "creation_ttl": 0 if ends is None else round((ends - made).total_seconds()),
        "display_name": row.label or "token",
        "entity_id": "",
        "expire_time": row.expires_at,
        "explicit_max_ttl": 0,
        "id": text,
        "issue_time": row.created_at,
        "meta": None,
        "num_uses": 0,
        "orphan": True,
        "path": "auth/token/create",
        "policies": row.scopes.split(" "),
        "renewable": False,
        "ttl": 0 if ends is None else max(0, int((ends - now).total_seconds())),
        "type": "service",
    }
    return told | ({"namespace_path": f"{row.tenant}/"} if row.tenant else {})


def _of_others(request: VaultRequest) -> dict[str, Any]:
    """Return what is told of a token that is not in the store: an issuer's, or none under ``--dev``."""
    scopes = " ".join(sorted(request.caller.scopes))
    row = TokenRecord(
        "", request.caller.principal.user, request.tenant, scopes, "", utc_text(request.service.now()), None, 0, b""
    )
    return _token(row, request.token, request.service.now())
