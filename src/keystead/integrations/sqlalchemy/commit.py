"""A transaction that wrote index hashes commits only if no index key has become live since.

A rotation of an index key waits until every node writes the new version, and then fills the rows that have the old one
alone. A row in a transaction that was open all that time, or that was sealed before, would be seen by neither.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

from sqlalchemy import Connection, Engine, event

from keystead.errors import KMSError, StaleViewError
from keystead.fields import FieldCipher
from keystead.integrations.sqlalchemy.binding import as_itself
from keystead.integrations.sqlalchemy.notes import notes_of

_WRITTEN: Final = "indexed"


def note_indexes(connection: Connection, cipher: FieldCipher, versions: Iterable[int] | None = None) -> None:
    """Remember under which index keys the transaction writes hashes of a field: the live ones, or those given.

    Raises:
        StaleViewError: rows were sealed before an index key became live. A connection that commits each statement by
            itself would have written them by the time of a commit.
    """
    live = set(cipher.index_versions)
    under = live if versions is None else set(versions)
    if live - under:
        raise _error(cipher)
    written = notes_of(connection, _WRITTEN)
    if cipher.field.id in written:
        under &= written[cipher.field.id][1]
    written[cipher.field.id] = (cipher, under)


def watch_commits(engine: Engine) -> None:
    """Look at every commit of an engine, and at what is prepared to be committed."""
    for name, action in _ACTIONS.items():
        if not event.contains(engine, name, action):
            event.listen(engine, name, action)


def _check(connection: Connection) -> None:
    if error := _stale(connection):
        # Whoever called believes the transaction ended, as if the database had refused to commit it: so it has to.
        connection.dialect.do_rollback(connection.connection)
        raise error


def _check_twophase(connection: Connection, *xid: object) -> None:
    """Raise before anything is prepared; whoever prepares rolls back then, with the other databases."""
    if error := _stale(connection):
        raise error


def _check_unprepared(connection: Connection, xid: object, is_prepared: bool) -> None:
    if not is_prepared and (error := _stale(connection)):
        connection.dialect.do_rollback_twophase(connection, xid, is_prepared)
        raise error


def _stale(connection: Connection) -> KMSError | None:
    """Return why a transaction is not committed, if rows that it wrote lack hashes."""
    written: dict[str, tuple[FieldCipher, set[int]]] = notes_of(connection, _WRITTEN)
    for cipher, versions in written.values():
        if set(cipher.index_versions) - versions:
            return _error(cipher)
    return None


def _error(cipher: FieldCipher) -> KMSError:
    return as_itself(
        StaleViewError(
            f"an index key of field {cipher.field.id} became live during the transaction, or after rows for it were "
            "sealed, which lack its hashes; do the transaction again, and seal rows for bulk statements anew"
        )
    )


_ACTIONS: Final[dict[str, Callable[..., None]]] = {
    "commit": _check,
    "prepare_twophase": _check_twophase,
    "commit_twophase": _check_unprepared,
}
