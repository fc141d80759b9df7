"""Which columns a flush is emptying: it deletes the rows of their words itself, which no other statement does."""

from __future__ import annotations

from typing import Final

from sqlalchemy import Connection, Engine, event

from keystead.fields import Field
from keystead.integrations.sqlalchemy.notes import notes_of

_EMPTIED: Final = "emptied"


def begin_emptying(connection: Connection, field: Field) -> None:
    """Remember that a flush is about to write NULL into a field's column."""
    notes_of(connection, _EMPTIED)[field.id] = True


def end_emptying(connection: Connection, field: Field) -> None:
    """Forget it, once the words are deleted."""
    notes_of(connection, _EMPTIED).pop(field.id, None)


def is_in_flush(connection: Connection, field: Field) -> bool:
    """Return whether a flush is writing NULL into a field's column."""
    return field.id in notes_of(connection, _EMPTIED)


def watch_savepoints(engine: Engine) -> None:
    """Forget what a flush that failed was emptying, where it takes no transaction along."""
    if not event.contains(engine, "rollback_savepoint", _forget):
        event.listen(engine, "rollback_savepoint", _forget)


def _forget(connection: Connection, *savepoint: object) -> None:
    if not connection.invalidated:
        notes_of(connection, _EMPTIED).clear()
