"""On whose behalf something is done: said by the application, written into every entry."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Final

from keystead.errors import InvalidInputError
from keystead.ports import AuditEvent

LONGEST: Final = 256
_actor: ContextVar[str | None] = ContextVar("keystead_audit_actor", default=None)


@dataclass(frozen=True, slots=True)
class Told:
    """An event, and on whose behalf."""

    event: AuditEvent
    actor: str | None


@contextmanager
def audit_actor(name: str) -> Iterator[None]:
    """Say on whose behalf everything in the block is done, in this task or thread and in those begun from it.

    with audit_actor("user:17"):
        await km.rotate_data_key()

    Args:
        name: up to 256 printable characters. It is written in clear: an id, and nothing that has to be forgotten.

    Raises:
        InvalidInputError: another name.
    """
    if not isinstance(name, str) or not name or not name.isprintable() or len(name) > LONGEST:
        raise InvalidInputError(f"an actor is a printable text of 1 to {LONGEST} characters")
    token = _actor.set(name)
    try:
        yield
    finally:
        _actor.reset(token)


def current_actor() -> str | None:
    """Return on whose behalf something is done now; None where nobody has said it."""
    return _actor.get()
