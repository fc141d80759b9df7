"""What tokens, secret ids and sessions are, as text and as the code that the store keeps of each.

Spec: docs/spec/api-token-v1.md, docs/spec/access-role-v1.md, docs/spec/console-session-v1.md and
docs/spec/approval-v1.md.
"""

from __future__ import annotations

import base64
import hmac
import re
from typing import Final, NamedTuple

from keystead.crypto.framing import framed
from keystead.ports import ApprovalRecord, RoleRecord, SecretIdRecord, SessionRecord, TokenRecord

ID_SIZE: Final = 8
SECRET_SIZE: Final = 32
PREFIX: Final = "kst1_"
SECRET_ID_PREFIX: Final = "kss1_"  # noqa: S105 -- what is in front of one
SESSION_PREFIX: Final = "ksc1_"
_TEXT: Final = re.compile(r"([0-9a-f]{16})_([A-Za-z0-9_-]{43})")


class TokenParts(NamedTuple):
    """Id and secret of a token, of a secret id or of a session."""

    id: str
    secret: bytes


def token_text(parts: TokenParts, prefix: str = PREFIX) -> str:
    """Return the text that is shown once."""
    return f"{prefix}{parts.id}_{base64.urlsafe_b64encode(parts.secret).decode().rstrip('=')}"


def parse_token(text: str, prefix: str = PREFIX) -> TokenParts | None:
    """Return the parts of a text; None if it is no token."""
    found = _TEXT.fullmatch(text.removeprefix(prefix)) if text.startswith(prefix) else None
    if found is None:
        return None
    parts = TokenParts(found[1], base64.urlsafe_b64decode(found[2] + "="))
    return parts if token_text(parts, prefix) == text else None


def token_code(key: bytes, row: TokenRecord, secret: bytes) -> bytes:
    """Return the code of a token under its row's key."""
    values = (row.id, row.subject, row.tenant, row.scopes, row.created_at, row.expires_at or "")
    if row.role_id is None:
        return hmac.digest(key, framed("keystead api token v1", *values, secret), "sha256")
    lease = (row.role_id, _number(row.ttl_s), row.ends_by or "", _number(row.uses))
    return hmac.digest(key, framed("keystead api token v2", *values, *lease, _mode(row), secret), "sha256")


def role_code(key: bytes, row: RoleRecord) -> bytes:
    """Return the code of a role under its row's key."""
    values = (row.id, row.kind.value, row.tenant, row.name, row.scopes, row.rules, row.created_at)
    return hmac.digest(key, framed("keystead access role v1", *values), "sha256")


def secret_id_code(key: bytes, row: SecretIdRecord, secret: bytes) -> bytes:
    """Return the code of a secret id under its row's key."""
    values = (row.id, row.role_id, row.created_at, row.expires_at, _number(row.uses), secret)
    return hmac.digest(key, framed("keystead secret id v1", *values), "sha256")


def session_code(key: bytes, row: SessionRecord, secret: bytes) -> bytes:
    """Return the code of a session under its row's key."""
    who = (row.id, row.subject, row.tenant, row.scopes, _mode(row), row.origin, row.token_id or "")
    values = (*who, row.created_at, row.expires_at, secret)
    return hmac.digest(key, framed("keystead console session v1", *values), "sha256")


def approval_code(key: bytes, row: ApprovalRecord) -> bytes:
    """Return the code of an approval under its row's key; under none in a store that has no key yet."""
    act = (row.id, row.action, row.target, row.details, row.tenant, row.asked_by, row.created_at, row.expires_at)
    said = (row.verdict, row.decided_by, row.decided_at)
    return hmac.digest(key, framed("keystead approval v1", *act, *said), "sha256")


def form_code(secret: bytes) -> str:
    """Return what a form of the console shows that it is of the session: derived from the session's secret."""
    return hmac.digest(secret, b"keystead console form v1", "sha256").hex()


def _mode(row: TokenRecord | SessionRecord) -> str:
    return "each" if row.is_audited_each else "counted"


def _number(value: int | None) -> str:
    return "" if value is None else str(value)
