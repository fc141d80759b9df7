"""How the audit trail names callers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256

from keystead.access.approvals import asked_by, asker_of
from keystead.access.callers import Caller
from keystead.ledger.audit.actor import LONGEST, audit_actor


@contextmanager
def on_behalf_of(by: Caller) -> Iterator[None]:
    """Say on whose behalf the block acts: to the audit trail, and to whoever asks for two people."""
    with audit_actor(actor_of(by)), asked_by(asker_of(by, is_admitted=True)):
        yield


def actor_of(by: Caller) -> str:
    """Return how an audit entry names a caller: what showed it, and the user."""
    who = by.principal
    text = f"{by.origin}, user {who.user}" + (f" of {who.tenant}" if who.tenant else "")
    if len(text) <= LONGEST:
        return text
    digest = sha256(text.encode()).hexdigest()
    return f"{text[: LONGEST - len(digest) - 1]}~{digest}"
