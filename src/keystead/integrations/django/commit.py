"""A transaction that wrote index hashes commits only if no index key has become live since.

A rotation of an index key waits until every node writes the new version, and then fills the rows that have the old one
alone. A row in a transaction that was open all that time would be seen by neither. Django has no signal before a
commit, so that the connection's own ``commit`` is asked.
"""

from __future__ import annotations

from typing import Any, Final

from keystead.errors import StaleViewError
from keystead.fields import FieldCipher

_NOTES: Final = "_keystead_written"


def note_indexes(connection: Any, cipher: FieldCipher, versions: frozenset[int]) -> None:
    """Remember under which index keys the transaction, if there is one, writes hashes of a field."""
    if connection.autocommit and not connection.in_atomic_block:
        return
    notes: dict[str, tuple[FieldCipher, frozenset[int]]] | None = connection.__dict__.get(_NOTES)
    if notes is None:
        notes = connection.__dict__[_NOTES] = {}
        _watch(connection, notes)
    known = notes.get(cipher.field.id)
    if known is None or known[0] is not cipher or not known[1] <= versions:
        notes[cipher.field.id] = (cipher, versions if known is None else versions & known[1])


def _watch(connection: Any, notes: dict[str, tuple[FieldCipher, frozenset[int]]]) -> None:
    commit, rollback = connection.commit, connection.rollback

    def committing() -> None:
        stale = next((cipher for cipher, versions in notes.values() if set(cipher.index_versions) - versions), None)
        if stale is not None:
            # Whoever called believes the transaction ended, as if the database had refused to commit it: so it has to.
            rolling_back()
            raise StaleViewError(
                f"an index key of field {stale.field.id} became live during the transaction, whose rows lack its "
                "hashes; do the transaction again"
            )
        commit()
        notes.clear()

    def rolling_back() -> None:
        notes.clear()
        rollback()

    connection.commit, connection.rollback = committing, rolling_back
