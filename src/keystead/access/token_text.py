"""What a token is, as text and as the code that the store keeps of it. Spec: docs/spec/api-token-v1.md."""

from __future__ import annotations

import base64
import hmac
import re
from typing import Final, NamedTuple

from keystead.crypto.framing import framed
from keystead.ports import TokenRecord

ID_SIZE: Final = 8
SECRET_SIZE: Final = 32
PREFIX: Final = "kst1_"
_TEXT: Final = re.compile(PREFIX + r"([0-9a-f]{16})_([A-Za-z0-9_-]{43})")


class TokenParts(NamedTuple):
    """Id and secret of a token."""

    id: str
    secret: bytes


def token_text(parts: TokenParts) -> str:
    """Return the text that is shown once."""
    return f"{PREFIX}{parts.id}_{base64.urlsafe_b64encode(parts.secret).decode().rstrip('=')}"


def parse_token(text: str) -> TokenParts | None:
    """Return the parts of a text; None if it is no token."""
    found = _TEXT.fullmatch(text)
    if found is None:
        return None
    parts = TokenParts(found[1], base64.urlsafe_b64decode(found[2] + "="))
    return parts if token_text(parts) == text else None


def token_code(key: bytes, row: TokenRecord, secret: bytes) -> bytes:
    """Return the code of a token under its row's key."""
    values = (row.id, row.subject, row.tenant, row.scopes, row.created_at, row.expires_at or "", secret)
    return hmac.digest(key, framed("keystead api token v1", *values), "sha256")
