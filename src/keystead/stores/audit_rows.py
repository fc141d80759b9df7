"""The audit trail as rows: entries that wait, sessions, the log and its state."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict
from typing import Any, Final

from sqlalchemy import (
    ARRAY,
    BigInteger,
    ColumnElement,
    Integer,
    LargeBinary,
    Select,
    Update,
    any_,
    bindparam,
    cast,
    delete,
    exists,
    func,
    or_,
    select,
    update,
)
from sqlalchemy.sql.base import ReadOnlyColumnCollection

from keystead.errors import ConflictError, InvalidInputError
from keystead.model import AUDIT_KEYRING
from keystead.ports import (
    MAX_ENTRY_BYTES,
    AuditEntryRow,
    AuditFilter,
    AuditLogRow,
    AuditSessionRow,
    AuditStateRow,
)
from keystead.stores.keys import KeyWriteRows
from keystead.stores.leases import MAX_TOKEN
from keystead.stores.many import InsertMany
from keystead.stores.prepared import Prepared
from keystead.stores.tables import audit_entries, audit_log, audit_sessions, audit_state, keyrings, store_state

FIRST_REVISION: Final = "0004"
"""The first release whose schema has this revision knows that a store is audited; an older one must not change keys."""
_AT_ONCE: Final = 500
_HAS_TRACE: Final = or_(
    exists(select(audit_state.c.id)),
    exists(select(audit_log.c.seq)),
    exists().where(keyrings.c.name == AUDIT_KEYRING),
).label("found")
_INSERT_ENTRY: Final = Prepared(audit_entries.insert())
_INSERT_RECORDS: Final = InsertMany(audit_log)
_ID_BYTES: Final = 16
_CODE_BYTES: Final = 32
_SESSION_CHARS: Final = 32
_UNNAMED: Final = audit_entries.c.id < b""
"""In SQLite whatever is no bytes comes before all that is."""
_CONTENTS: Final = ("state", "code")
_VOUCHED: Final = (*_CONTENTS, "size", "key_id")
_ANY_WAITS: Final = Prepared(select(exists(select(audit_entries.c.id)).label("found")))
STATE_COLUMNS: Final[list[ColumnElement[Any]]] = [
    cast(audit_state.c[name], LargeBinary if name in _CONTENTS else BigInteger).label(name)
    for name in AuditStateRow.__slots__
]
_STATE: Final = Prepared(select(*STATE_COLUMNS))
_SESSION_COLUMNS: Final[list[ColumnElement[Any]]] = [
    audit_sessions.c.id,
    audit_sessions.c.node,
    cast(audit_sessions.c.wrapped_key, LargeBinary).label("wrapped_key"),
    audit_sessions.c.begun_ms,
]
_SESSION: Final = Prepared(select(*_SESSION_COLUMNS).where(audit_sessions.c.id == bindparam("of_id")))
_MOST: Final = bindparam("most", type_=Integer)
_MOVED: Final = "the audit trail was moved on by another process first"


class AuditRows(KeyWriteRows):
    """Reads and writes the audit trail; ``keystead.ports.AuditRows``."""

    async def set_audited(self, audited: bool) -> None:
        """Mark the store as one whose changes are recorded, or not any more. Counts the epoch up.

        From the first time on, releases that would change keys without a word refuse to work on it.
        """
        await self.bump_epoch()
        await self._write(update(store_state).values(audited=audited))
        if audited:
            await self._raise_usable_from(FIRST_REVISION)

    async def has_audit_trace(self) -> bool:
        """Return whether anything of an audit trail is there: a state, a record, or the keyring of a trail."""
        row = await self._first(select(_HAS_TRACE))
        return row is not None and bool(row["found"])

    async def add_audit_entries(self, entries: Sequence[AuditEntryRow]) -> None:
        """Insert entries."""
        if len(entries) == 1:
            # Most transactions have one, and a statement for many takes longer.
            await self._run(_INSERT_ENTRY, _entry_row(entries[0]))
        elif entries:
            await self._run_many(_INSERT_ENTRY, [_entry_row(entry) for entry in entries])

    async def audit_entries(
        self, *, sessions: Collection[str] | None = None, after: bytes | None = None, limit: int = 1000
    ) -> list[AuditEntryRow]:
        """Return a page of the entries that wait, by id; of some sessions, or of all."""
        if sessions is None and after is None:
            rows = await self._run(_ENTRIES, {"most": limit}, writes=False)
        else:
            query = _entries(self._connection.dialect.name, sessions)
            query = query if after is None else query.where(audit_entries.c.id > after)
            rows = [{**row} for row in await self._all(query, {"most": limit})]
        return [entry_of(row) for row in rows]

    async def has_audit_entries(self) -> bool:
        """Return whether any entry waits."""
        [row] = await self._run(_ANY_WAITS, {}, writes=False)
        return bool(row["found"])

    async def count_unnamed_entries(self) -> int:
        """Return how many entries wait whose id is no bytes, as SQLite lets it be: nothing else here finds them."""
        if not self._is_sqlite:
            return 0
        query = select(func.count().label("count")).select_from(audit_entries).where(_UNNAMED)
        row = await self._first(query)
        return 0 if row is None else int(row["count"])

    async def name_audit_entries(self) -> None:
        """Give those entries an id."""
        await self._write(update(audit_entries).where(_UNNAMED).values(id=func.randomblob(_ID_BYTES)))

    async def waiting_sessions(self) -> list[str]:
        """Return the sessions that entries wait of."""
        return [
            _text(row[0] or b"")
            for row in await self._tuples(select(_session(self._connection.dialect.name)).distinct())
        ]

    async def count_audit_entries(self, *, at_most: int | None = None) -> tuple[int, bytes | None]:
        """Return how many entries wait, counted up to ``at_most``, and the lowest id among them."""
        # Not min(): PostgreSQL has none for bytes.
        lowest = in_their_order(select(audit_entries.c.id)).limit(1)
        number, first = await self._number_up_to(at_most, audit_entries), await self._first(lowest)
        return number, None if first is None else bytes(first["id"])

    async def drop_audit_entries(self, ids: Sequence[bytes]) -> int:
        """Delete entries; return how many were there."""
        dropped = 0
        for at in range(0, len(ids), _AT_ONCE):
            some = list(ids[at : at + _AT_ONCE])
            if self._is_sqlite:
                dropped += await self._count(delete(audit_entries).where(audit_entries.c.id.in_(some)))
            else:
                [row] = await self._run(_DROP, {"ids": some})
                dropped += row["count"]
        return dropped

    async def add_audit_session(self, session: AuditSessionRow) -> None:
        """Insert a session."""
        await self._write(audit_sessions.insert().values(asdict(session)))

    async def audit_sessions(self, ids: Collection[str]) -> list[AuditSessionRow]:
        """Return sessions by id."""
        found: list[AuditSessionRow] = []
        wanted = sorted(ids)
        for at in range(0, len(wanted), _AT_ONCE):
            some = wanted[at : at + _AT_ONCE]
            rows: Sequence[Sequence[Any]]
            if len(some) == 1:
                # Of one process alone, mostly.
                rows = [tuple(row.values()) for row in await self._run(_SESSION, {"of_id": some[0]}, writes=False)]
            else:
                rows = await self._tuples(select(*_SESSION_COLUMNS).where(audit_sessions.c.id.in_(some)))
            for name, where, key, begun_ms in rows:
                # What is no session of ours is none: its first entry may tell of it.
                if type(begun_ms) is int:
                    found.append(AuditSessionRow(name, _text(where), key, begun_ms))
        return found

    async def drop_audit_sessions(self, begun_before_ms: int) -> int:
        """Delete the sessions that began before a time and that no entry waits of; return how many."""
        waiting = select(audit_entries.c.session)
        over = audit_sessions.c.begun_ms < begun_before_ms
        return await self._count(delete(audit_sessions).where(over, audit_sessions.c.id.not_in(waiting)))

    async def add_audit_records(self, records: Sequence[AuditLogRow]) -> None:
        """Insert records; ``ConflictError`` when one of the numbers or entries is taken."""
        await self._run_many(_INSERT_RECORDS, [record._asdict() for record in records])

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
            query = query.where(*equalities(where), *times(where))
        order = audit_log.c.seq.desc() if newest_first else audit_log.c.seq
        return [log_row(row) for row in await self._tuples(query.order_by(order).limit(limit))]

    async def count_audit_records(
        self, *, after: int, before: int, where: AuditFilter, at_most: int | None = None
    ) -> int:
        """Return how many records there are between two numbers, both excluded, filtered by the search columns.

        They are counted up to ``at_most``.
        """
        between = (audit_log.c.seq > after, audit_log.c.seq < before)
        return await self._number_up_to(at_most, audit_log, *between, *equalities(where), *times(where))

    async def audit_controls(
        self,
        kind: str,
        *,
        after: int = -1,
        before: int | None = None,
        newest_first: bool = False,
        limit: int = 1000,
    ) -> list[AuditLogRow]:
        """Return records of the log's own, of a kind, between two numbers, both excluded."""
        query = select(audit_log).where(audit_log.c.kind == kind, audit_log.c.seq > after)
        if before is not None:
            query = query.where(audit_log.c.seq < before)
        order = audit_log.c.seq.desc() if newest_first else audit_log.c.seq
        return [log_row(row) for row in await self._tuples(query.order_by(order).limit(limit))]

    async def listed_entries(self, ids: Collection[bytes]) -> list[AuditLogRow]:
        """Return the records that are listed under the ids of these entries, whether or not they hold them."""
        found: list[AuditLogRow] = []
        wanted = list(ids)
        for at in range(0, len(wanted), _AT_ONCE):
            query = select(audit_log).where(audit_log.c.entry_id.in_(wanted[at : at + _AT_ONCE]))
            found += [log_row(row) for row in await self._tuples(query)]
        return found

    async def audit_size(self, *, before: int | None = None) -> int:
        """Return the number after the highest one in the log, or after the highest one before a number."""
        query = select(func.max(audit_log.c.seq).label("last"))
        row = await self._first(query if before is None else query.where(audit_log.c.seq < before))
        return 0 if row is None or row["last"] is None else int(row["last"]) + 1

    async def drop_audit_records(self, before: int) -> int:
        """Delete the records below a number; return how many there were."""
        return await self._count(delete(audit_log).where(audit_log.c.seq < before))

    async def audit_state(self) -> AuditStateRow | None:
        """Return the state of the log; None where there is none."""
        rows = await self._run(_STATE, {}, writes=False)
        return state_of(rows[0]) if rows else None

    async def put_audit_state(self, state: AuditStateRow, *, expected: int | None) -> None:
        """Write the state; ``ConflictError`` unless its size was ``expected`` (None: there was none)."""
        values = asdict(state)
        if expected is None:
            made = self._insert(audit_state).values(id=1, **values).on_conflict_do_nothing(index_elements=["id"])
            if await self._write(made.returning(audit_state.c.id)) is None:
                raise ConflictError(_MOVED)
            return
        moved = {f"new_{name}": value for name, value in values.items()}
        if not await self._run(_MOVE_STATE, {**moved, "before": expected}):
            raise ConflictError(_MOVED)

    @property
    def _is_sqlite(self) -> bool:
        return self._connection.sync_engine.dialect.name == "sqlite"

    async def note_audit_export(self, size: int) -> None:
        """Note that a checkpoint over so many records has left the database; never goes back."""
        if size < 0:
            raise InvalidInputError("a checkpoint is over no fewer than no records")
        now = await self.now_ms()
        is_further = audit_state.c.exported_size <= size
        await self._write(update(audit_state).where(is_further).values(exported_size=size, exported_ms=now))


def in_their_order(query: Select[Any], sessions: Collection[str] | None = None) -> Select[Any]:
    """Have a query of entries give them by id; those of some sessions, or all."""
    query = query.where(audit_entries.c.id >= b"").order_by(audit_entries.c.id)
    return query if sessions is None else query.where(audit_entries.c.session.in_(list(sessions)))


def entry_columns(dialect: str) -> list[ColumnElement[Any]]:
    """Return what an entry is read by; of what is too long there is enough to see that."""
    entry = func.substr(cast(audit_entries.c.entry, LargeBinary), 1, MAX_ENTRY_BYTES + 1).label("entry")
    code = func.substr(cast(audit_entries.c.code, LargeBinary), 1, _CODE_BYTES + 1).label("code")
    return [audit_entries.c.id, _session(dialect).label("session"), entry, code]


def entry_of(row: Mapping[str, Any]) -> AuditEntryRow:
    """Return a row of those columns as an entry."""
    # Of nothing SQLite makes none.
    return AuditEntryRow(row["id"], _text(row["session"] or b""), row["entry"] or b"", row["code"] or b"")


def state_of(row: Mapping[str, Any]) -> AuditStateRow:
    """Return a row of ``STATE_COLUMNS``, with others or not, as the state of the log."""
    # Nothing vouches for some: what nobody can have counted is not counted on with.
    is_known = {name: name in _VOUCHED or 0 <= row[name] <= MAX_TOKEN for name in AuditStateRow.__slots__}
    values: dict[str, Any] = {name: row[name] if known else 0 for name, known in is_known.items()}
    return AuditStateRow(**values)


def _session(dialect: str) -> ColumnElement[Any]:
    column = audit_entries.c.session
    return func.substr(cast(column, LargeBinary), 1, _SESSION_CHARS + 1) if dialect == "sqlite" else column


def _entries(dialect: str, sessions: Collection[str] | None = None) -> Select[Any]:
    return in_their_order(select(*entry_columns(dialect)), sessions).limit(_MOST)


def _moved_state() -> Update:
    # Where exports stand is noted by whoever exports, and never goes back.
    names = [name for name in AuditStateRow.__slots__ if not name.startswith("exported_")]
    token, size = audit_state.c.token, cast(audit_state.c.size, BigInteger)
    is_ours = (size == bindparam("before", type_=BigInteger)) & (
        (token <= bindparam("new_token", type_=BigInteger)) | (token > MAX_TOKEN)
    )
    change = update(audit_state).where(is_ours).values({name: bindparam(f"new_{name}") for name in names})
    return change.returning(audit_state.c.id)


def _drop() -> Select[Any]:
    ids = any_(bindparam("ids", type_=ARRAY(LargeBinary)))
    dropped = delete(audit_entries).where(audit_entries.c.id == ids).returning(audit_entries.c.id).cte("dropped")
    return select(func.count().label("count")).select_from(dropped)


_DROP: Final = Prepared(_drop())
_ENTRIES: Final = Prepared(_entries)
_MOVE_STATE: Final = Prepared(_moved_state())


def _text(value: str | bytes) -> str:
    """Return a text column of SQLite, where somebody else may have put any bytes."""
    return value if isinstance(value, str) else value.decode(errors="backslashreplace")


def _entry_row(entry: AuditEntryRow) -> dict[str, Any]:
    return {name: getattr(entry, name) for name in AuditEntryRow.__slots__}


def log_row(row: Sequence[Any]) -> AuditLogRow:
    """Return a record; its line as ``line_of`` does."""
    if type(row[1]) is bytes:
        return AuditLogRow._make(row)
    seq, line, *others = row
    return AuditLogRow(seq, line_of(line), *others)


def line_of(line: Any) -> bytes:
    """Return a line; of one that is no bytes, as SQLite lets it be, what nobody reads as one."""
    return line if type(line) is bytes else f"not bytes: {line!r}".encode(errors="backslashreplace")


def equalities(where: AuditFilter, of: ReadOnlyColumnCollection[str, Any] = audit_log.c) -> list[ColumnElement[bool]]:
    """Return what a filter asks for by a value of a column, what fewest records have first."""
    columns: dict[str, Any] = {"entry_id": where.entry_id, "key_id": where.key_id, "keyring": where.keyring}
    columns["action"] = where.action
    return [of[name] == value for name, value in columns.items() if value is not None]


def times(where: AuditFilter, of: ReadOnlyColumnCollection[str, Any] = audit_log.c) -> list[ColumnElement[bool]]:
    """Return what a filter asks for by the time of an entry."""
    found = [] if where.since is None else [of["at"] >= where.since]
    return found if where.until is None else [*found, of["at"] < where.until]
