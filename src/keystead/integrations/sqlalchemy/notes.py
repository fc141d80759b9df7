"""What is remembered of a transaction, with its connection, until another one begins there."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, Engine, event

_NOTES = "keystead.notes"
_ENDS = ("begin", "begin_twophase", "rollback", "rollback_twophase")


def notes_of(connection: Connection, subject: str) -> dict[Any, Any]:
    """Return what is remembered of a subject in the connection's transaction, to be read and changed."""
    notes: dict[Any, Any] = connection.info.setdefault(_NOTES, {}).setdefault(subject, {})
    return notes


def forget(connection: Connection, *which: object) -> None:
    """Forget everything. A connection that was lost has taken it along, and gives nothing until it is rolled back."""
    if not connection.invalidated:
        connection.info.pop(_NOTES, None)


def watch_ends(engine: Engine) -> None:
    """Forget what is remembered when a transaction is over."""
    for name in _ENDS:
        if not event.contains(engine, name, forget):
            event.listen(engine, name, forget)
