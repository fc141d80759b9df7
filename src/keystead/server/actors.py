"""How the audit trail names callers."""

from __future__ import annotations

from hashlib import sha256

from keystead.access.callers import Caller
from keystead.ledger.audit.actor import LONGEST


def actor_of(by: Caller) -> str:
    """Return how an audit entry names a caller: what showed it, and the user."""
    who = by.principal
    text = f"{by.origin}, user {who.user}" + (f" of {who.tenant}" if who.tenant else "")
    if len(text) <= LONGEST:
        return text
    digest = sha256(text.encode()).hexdigest()
    return f"{text[: LONGEST - len(digest) - 1]}~{digest}"
