"""A transaction that wrote index hashes commits only if no index key has become live since.

A rotation of an index key waits until every node writes the new version, and then fills the rows that have the old one
alone. A row in a transaction that was open all that time, or that was sealed before, would be seen by neither.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from sqlalchemy import Connection, Engine, event

from keystead.errors import StaleViewError
from keystead.fields import FieldCipher
from keystead.integrations.sqlalchemy.binding import as_itself

_WRITTEN: Final = "keystead.indexed"


def note_indexes(connection: Connection, cipher: FieldCipher, versions: Iterable[int] | None = None) -> None:
    """Remember under which index keys the transaction writes hashes of a field: the live ones, or those given."""
    written: dict[str, tuple[FieldCipher, set[int]]] = connection.info.setdefault(_WRITTEN, {})
    under = set(cipher.index_versions if versions is None else versions)
    if cipher.field.id in written:
        under &= written[cipher.field.id][1]
    written[cipher.field.id] = (cipher, under)


def watch_commits(engine: Engine) -> None:
    """Look at every commit of an engine."""
    if not event.contains(engine, "commit", _check):
        event.listen(engine, "begin", _forget)
        event.listen(engine, "commit", _check)
        event.listen(engine, "rollback", _forget)


def _check(connection: Connection) -> None:
    written: dict[str, tuple[FieldCipher, set[int]]] = connection.info.pop(_WRITTEN, {})
    for cipher, versions in written.values():
        if set(cipher.index_versions) - versions:
            # Whoever called believes the transaction ended, as if the database had refused to commit it: so it has to.
            connection.dialect.do_rollback(connection.connection)
            raise as_itself(
                StaleViewError(
                    f"an index key of field {cipher.field.id} became live during the transaction, whose rows lack its "
                    "hashes; do the transaction again, and seal rows for bulk statements anew"
                )
            )


def _forget(connection: Connection) -> None:
    connection.info.pop(_WRITTEN, None)
