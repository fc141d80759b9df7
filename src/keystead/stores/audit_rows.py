"""The audit trail as rows: entries that wait, sessions, the log and its state."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import asdict
from typing import Any, Final

from sqlalchemy import Select, delete, func, select, update
from sqlalchemy.dialects import sqlite

from keystead.errors import ConflictError, InvalidInputError
from keystead.ports import AuditEntryRow, AuditFilter, AuditLogRow, AuditSessionRow, AuditStateRow
from keystead.stores.keys import KeyWriteRows
from keystead.stores.tables import audit_entries, audit_log, audit_sessions, audit_state, store_state

FIRST_REVISION: Final = "0004"
"""The first release whose schema has this revision knows that a store is audited; an older one must not change keys."""
_AT_ONCE: Final = 500
_INSERT: Final = audit_entries.insert()
_INSERT_IN_SQLITE: Final = str(_INSERT.compile(dialect=sqlite.dialect()))
_MOVED: Final = "the audit trail was moved on by another process first"


class AuditRows(KeyWriteRows):
    """Reads and writes the audit trail; ``keystead.ports.AuditRows``."""

    async def set_audited(self, audited: bool) -> None:
        """Mark the store as one whose changes are recorded, or not any more. Counts the epoch up.

        From the first time on, releases that would change keys without a word refuse to work on it.
        """
        await self.bump_epoch()
        values: dict[str, Any] = {"audited": audited}
        if audited:
            values["usable_from"] = FIRST_REVISION
        await self._write(update(store_state).values(values))

    async def add_audit_entries(self, entries: Sequence[AuditEntryRow]) -> None:
        """Insert entries."""
        if len(entries) == 1:
            # Most transactions have one, and a statement for many takes longer.
            await self._write_row(_INSERT, _INSERT_IN_SQLITE, _entry_row(entries[0]))
        elif entries:
            await self._write_many(_INSERT, [_entry_row(entry) for entry in entries])

    async def audit_entries(
        self, *, sessions: Collection[str] | None = None, after: bytes = b"", limit: int = 1000
    ) -> list[AuditEntryRow]:
        """Return a page of the entries that wait, by id; of some sessions, or of all."""
        query = select(audit_entries).where(audit_entries.c.id > after).order_by(audit_entries.c.id).limit(limit)
        if sessions is not None:
            query = query.where(audit_entries.c.session.in_(list(sessions)))
        return [AuditEntryRow(*row) for row in await self._tuples(query)]

    async def waiting_sessions(self) -> list[str]:
        """Return the sessions that entries wait of."""
        return [row["session"] for row in await self._all(select(audit_entries.c.session).distinct())]

    async def count_audit_entries(self) -> tuple[int, bytes | None]:
        """Return how many entries wait, and the lowest id among them."""
        # Not min(): PostgreSQL has none for bytes.
        lowest = select(audit_entries.c.id).order_by(audit_entries.c.id).limit(1)
        row = await self._first(select(func.count().label("count")).select_from(audit_entries))
        first = await self._first(lowest)
        return (0 if row is None else int(row["count"])), None if first is None else bytes(first["id"])

    async def drop_audit_entries(self, ids: Sequence[bytes]) -> int:
        """Delete entries; return how many were there."""
        dropped = 0
        for at in range(0, len(ids), _AT_ONCE):
            some = list(ids[at : at + _AT_ONCE])
            dropped += await self._count(delete(audit_entries).where(audit_entries.c.id.in_(some)))
        return dropped

    async def add_audit_session(self, session: AuditSessionRow) -> None:
        """Insert a session."""
        await self._write(audit_sessions.insert().values(asdict(session)))

    async def audit_sessions(self, ids: Collection[str]) -> list[AuditSessionRow]:
        """Return sessions by id."""
        found: list[AuditSessionRow] = []
        wanted = sorted(ids)
        for at in range(0, len(wanted), _AT_ONCE):
            query = select(audit_sessions).where(audit_sessions.c.id.in_(wanted[at : at + _AT_ONCE]))
            found += [AuditSessionRow(**row) for row in await self._all(query)]
        return found

    async def end_audit_session(self, session_id: str, last: int) -> None:
        """Note the number of a session's last entry."""
        await self._write(update(audit_sessions).where(audit_sessions.c.id == session_id).values(last=last))

    async def drop_audit_sessions(self, begun_before_ms: int) -> int:
        """Delete the sessions that began before a time and that no entry waits of; return how many."""
        waiting = select(audit_entries.c.session)
        over = audit_sessions.c.begun_ms < begun_before_ms
        return await self._count(delete(audit_sessions).where(over, audit_sessions.c.id.not_in(waiting)))

    async def add_audit_records(self, records: Sequence[AuditLogRow]) -> None:
        """Insert records; ``ConflictError`` when one of the numbers or entries is taken."""
        await self._write_many(audit_log.insert(), [_as_row(record) for record in records])

    async def audit_records(
        self,
        *,
        after: int = -1,
        before: int | None = None,
        where: AuditFilter | None = None,
        newest_first: bool = False,
        limit: int = 1000,
    ) -> list[AuditLogRow]:
        """Return a page of records between two numbers, both excluded, filtered by the search columns."""
        query = select(audit_log).where(audit_log.c.seq > after)
        if before is not None:
            query = query.where(audit_log.c.seq < before)
        if where is not None:
            query = _filtered(query, where)
        order = audit_log.c.seq.desc() if newest_first else audit_log.c.seq
        return [_log_row(row) for row in await self._tuples(query.order_by(order).limit(limit))]

    async def audit_controls(self, kind: str, *, newest_first: bool = False, limit: int = 1000) -> list[AuditLogRow]:
        """Return records of the log's own, of a kind."""
        order = audit_log.c.seq.desc() if newest_first else audit_log.c.seq
        query = select(audit_log).where(audit_log.c.kind == kind).order_by(order).limit(limit)
        return [_log_row(row) for row in await self._tuples(query)]

    async def recorded_entries(self, ids: Collection[bytes]) -> set[bytes]:
        """Return which of these entries are in the log already."""
        found: set[bytes] = set()
        wanted = list(ids)
        for at in range(0, len(wanted), _AT_ONCE):
            query = select(audit_log.c.entry_id).where(audit_log.c.entry_id.in_(wanted[at : at + _AT_ONCE]))
            found |= {bytes(row["entry_id"]) for row in await self._all(query)}
        return found

    async def audit_size(self) -> int:
        """Return the number after the highest one in the log."""
        row = await self._first(select(func.max(audit_log.c.seq).label("last")))
        return 0 if row is None or row["last"] is None else int(row["last"]) + 1

    async def drop_audit_records(self, before: int) -> int:
        """Delete the records below a number; return how many there were."""
        return await self._count(delete(audit_log).where(audit_log.c.seq < before))

    async def audit_state(self) -> AuditStateRow | None:
        """Return the state of the log; None where there is none."""
        row = await self._first(select(audit_state))
        return None if row is None else AuditStateRow(**{name: row[name] for name in row if name != "id"})

    async def put_audit_state(self, state: AuditStateRow, *, expected: int | None) -> None:
        """Write the state; ``ConflictError`` unless its size was ``expected`` (None: there was none)."""
        values = asdict(state)
        if expected is None:
            made = self._insert(audit_state).values(id=1, **values).on_conflict_do_nothing(index_elements=["id"])
            if await self._write(made.returning(audit_state.c.id)) is None:
                raise ConflictError(_MOVED)
            return
        # Where exports stand is noted by whoever exports, and never goes back.
        del values["exported_size"], values["exported_ms"]
        is_ours = (audit_state.c.size == expected) & (audit_state.c.token <= state.token)
        if not await self._count(update(audit_state).where(is_ours).values(values)):
            raise ConflictError(_MOVED)

    async def note_audit_export(self, size: int) -> None:
        """Note that a checkpoint over so many records has left the database; never goes back."""
        if size < 0:
            raise InvalidInputError("a checkpoint is over no fewer than no records")
        now = await self.now_ms()
        is_further = audit_state.c.exported_size <= size
        await self._write(update(audit_state).where(is_further).values(exported_size=size, exported_ms=now))


def _entry_row(entry: AuditEntryRow) -> dict[str, Any]:
    return {name: getattr(entry, name) for name in AuditEntryRow.__slots__}


def _log_row(row: Sequence[Any]) -> AuditLogRow:
    """Return a record; of a line that is no bytes, as SQLite lets it be, what nobody reads as one."""
    if type(row[1]) is bytes:
        return AuditLogRow(*row)
    seq, line, *others = row
    return AuditLogRow(seq, f"not bytes: {line!r}".encode(errors="backslashreplace"), *others)


def _as_row(record: AuditLogRow) -> dict[str, Any]:
    return {name: getattr(record, name) for name in AuditLogRow.__slots__}


def _filtered(query: Select[Any], where: AuditFilter) -> Select[Any]:
    columns: dict[str, Any] = {"keyring": where.keyring, "action": where.action, "key_id": where.key_id}
    columns["entry_id"] = where.entry_id
    for name, value in columns.items():
        if value is not None:
            query = query.where(audit_log.c[name] == value)
    if where.since is not None:
        query = query.where(audit_log.c.at >= where.since)
    if where.until is not None:
        query = query.where(audit_log.c.at < where.until)
    return query
