"""Rows that a re-encryption passed by: looked for when every chunk is done, before anybody relies on it.

A row whose key moves to a place where the job has been is not read, and a node that has not heard of a rotation may
write under the old version behind it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Mapping
from typing import Final

from keystead.fields.field import Field
from keystead.fields.indexes import version_marks
from keystead.fields.sealing import WorksOnRows
from keystead.model import DataKeyState, KeyRecord, is_of_subject
from keystead.model.patterns import covers
from keystead.ports import UnitOfWork
from keystead.ports.rows import ApplicationRows, Unfinished

PAGE_ROWS: Final = 2000


def look(
    table: ApplicationRows, sealer: WorksOnRows, field: Field, index_versions: Collection[int]
) -> tuple[int, Mapping[bytes | None, int]]:
    """Return how many rows are in clear or lack a hash of a version, and how many are under each data key; blocks.

    A transaction that wrote to the table and is prepared counts as a row that lacks something: it cannot be seen.
    """
    with contextlib.closing(table):
        found = table.prepared()
        versions = table.versions()
        marks = version_marks(index_versions)
        single = [index for index in field.indexes if not index.many]
        columns = {index.column(field.column, parity): marks[parity] for index in single for parity in marks}
        wanted = Unfinished(columns, tuple(marks.values()), is_null_sealed=field.encrypt_null)
        after = None
        while rows := table.read_unfinished(wanted, after, PAGE_ROWS):
            tokens = table.read_tokens([row[table.layout.record[0]] for row in rows]) if sealer.has_tokens else None
            # Some are as they should be: a text without a word, and a None that is encrypted, have no hash.
            work = sealer.work_on(rows, tokens)
            found += len(work.changes) + len(work.failures)
            after = rows[-1][: table.layout.key]
    return found, versions


async def stale_rows(work: UnitOfWork, field: Field, versions: Mapping[bytes | None, int]) -> int:
    """Return how many of the rows that ``ApplicationRows.versions`` counted are under no active key of the field."""
    under = {int.from_bytes(name, "big") if len(name) == 8 else 0: rows for name, rows in versions.items() if name}
    keys = await work.find_keys(under)
    return sum(under.values()) - sum(under[key.id] for key in keys if _is_done(key, field))


def _is_done(key: KeyRecord, field: Field) -> bool:
    """Return whether nothing is to be done about what is under a key: it encrypts, or is a forgotten subject's."""
    is_erased = key.state is DataKeyState.DESTROYED and is_of_subject(key.keyring)
    return (key.state is DataKeyState.ACTIVE or is_erased) and covers(field.keyring, key.keyring)
