"""Which columns a flush is emptying: it deletes the rows of their words itself, which no other statement does."""

from __future__ import annotations

from typing import Final

from sqlalchemy import Connection, Engine, event

from keystead.fields import Field

_EMPTIED: Final = "keystead.emptied"


def begin_emptying(connection: Connection, field: Field) -> None:
    """Remember that a flush is about to write NULL into a field's column."""
    connection.info.setdefault(_EMPTIED, set()).add(field.id)


def end_emptying(connection: Connection, field: Field) -> None:
    """Forget it, once the words are deleted."""
    connection.info.get(_EMPTIED, set()).discard(field.id)


def is_in_flush(connection: Connection, field: Field) -> bool:
    """Return whether a flush is writing NULL into a field's column."""
    return field.id in connection.info.get(_EMPTIED, ())


def watch_rollbacks(engine: Engine) -> None:
    """Forget what a flush that failed was emptying."""
    if not event.contains(engine, "begin", _forget):
        event.listen(engine, "begin", _forget)
        event.listen(engine, "rollback", _forget)
        event.listen(engine, "rollback_savepoint", _forget)


def _forget(connection: Connection, *savepoint: object) -> None:
    connection.info.pop(_EMPTIED, None)
