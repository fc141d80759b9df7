"""Subjects and the mark of the erasure log as rows."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import asdict
from typing import Any, Final

from sqlalchemy import delete, select

from keystead.ports import ErasureMark, SubjectRecord
from keystead.stores import tables
from keystead.stores.keys import KeyWriteRows
from keystead.stores.records import as_record
from keystead.stores.tables import erasure_state, subjects

FIRST_REVISION: Final = "0008"
"""An older release would use the keys of subjects without looking at the erasure log."""


class SubjectRows(KeyWriteRows):
    """Subjects; ``keystead.ports.SubjectRows``."""

    async def find_subjects(self, subject_ids: Collection[bytes]) -> list[SubjectRecord]:
        """Return those of these subjects that there are, by their hashes."""
        rows = await self._all_of(select(subjects), subjects.c.id, subject_ids)
        return [as_record(SubjectRecord, subjects, row) for row in rows]

    async def add_subjects(self, subjects: Sequence[SubjectRecord]) -> None:
        """Insert new subjects; ``ConflictError`` where the hash of one is there already."""
        await self._write_many(tables.subjects, [asdict(subject) for subject in subjects])

    async def drop_subject(self, keyring: str) -> bool:
        """Remove the subject of a keyring; False when absent."""
        return bool(await self._count(delete(subjects).where(subjects.c.keyring == keyring)))

    async def subjects(self, *, after: bytes = b"", limit: int = 1000) -> list[SubjectRecord]:
        """Return a page of subjects by hash."""
        query = select(subjects).where(subjects.c.id > after).order_by(subjects.c.id).limit(limit)
        return [as_record(SubjectRecord, subjects, row) for row in await self._all(query)]

    async def erasure_mark(self) -> ErasureMark | None:
        """Return how far the erasure log has been followed; None where it has not begun."""
        row = await self._first(select(erasure_state.c["count"], erasure_state.c.head))
        return None if row is None else as_record(ErasureMark, erasure_state, row)

    async def put_erasure_mark(self, mark: ErasureMark) -> None:
        """Write it. From the first time on, releases that know of no erasures refuse to work on the store."""
        values: dict[str, Any] = {"count": mark.count, "head": mark.head}
        insert = self._insert(erasure_state).values(id=1, **values)
        await self._write(insert.on_conflict_do_update(index_elements=["id"], set_=values))
        await self._raise_usable_from(FIRST_REVISION)
