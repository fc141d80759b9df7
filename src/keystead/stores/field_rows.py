"""Registered fields, and the jobs that re-encrypt their columns, as rows."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import asdict, replace
from typing import Any, Final

from sqlalchemy import ColumnElement, RowMapping, and_, case, delete, func, or_, select, text, tuple_, update

from keystead.errors import ConflictError, InvalidInputError, KeyNotFoundError
from keystead.ports import (
    MAX_FAILURES,
    AilingReencryption,
    ChunkRecord,
    ChunkTotals,
    FieldRecord,
    ReencryptionRecord,
    ReencryptionState,
)
from keystead.stores.keys import KeyReadRows
from keystead.stores.records import as_record
from keystead.stores.tables import fields, reencryption_chunks, reencryptions

_CHANGEABLE: Final = frozenset({"state", "batch_rows", "target", "frontier", "exhausted", "rows_total"})
_COUNTS: Final = ("read", "rewritten", "skipped", "contended", "failed", "erased")
_SAVED: Final = ("cursor", "done", *_COUNTS, "failures")


class FieldRows(KeyReadRows):
    """Registers, lists and drops fields; ``keystead.ports.FieldRows``."""

    async def fields(
        self, index_keyring: str | None = None, *, after: str = "", limit: int | None = None
    ) -> list[FieldRecord]:
        """Return the registered fields by id, of an index keyring or all; those ``after`` an id."""
        query = select(fields).order_by(fields.c.id)
        if index_keyring is not None:
            query = query.where(fields.c.index_keyring == index_keyring)
        if after:
            query = query.where(fields.c.id > after)
        return [as_record(FieldRecord, fields, row) for row in await self._all(query.limit(limit))]

    async def find_field(self, field_id: str) -> FieldRecord | None:
        """Return a registered field."""
        row = await self._first(select(fields).where(fields.c.id == field_id))
        return None if row is None else as_record(FieldRecord, fields, row)

    async def put_field(self, record: FieldRecord) -> None:
        """Register a field, or change what is registered under its id."""
        row = asdict(record)
        insert = self._insert(fields).values(row)
        changed = {name: insert.excluded[name] for name in row if name != "id"}
        await self._write(insert.on_conflict_do_update(index_elements=["id"], set_=changed))

    async def note_indexed(self, field_id: str, version: int) -> bool:
        """Raise a field's ``indexed_version`` to ``version``; False when no such field is registered."""
        known = func.coalesce(fields.c.indexed_version, 0)
        highest = case((known < version, version), else_=known)
        return bool(await self._count(update(fields).where(fields.c.id == field_id).values(indexed_version=highest)))

    async def drop_field(self, field_id: str) -> bool:
        """Remove a registration; False when absent."""
        return bool(await self._count(delete(fields).where(fields.c.id == field_id)))


class ReencryptionRows(KeyReadRows):
    """Re-encryption jobs and their chunks; ``keystead.ports.ReencryptionRows``. Lock a job before its chunks."""

    async def add_reencryption(self, record: ReencryptionRecord) -> ReencryptionRecord:
        """Add a job and return it with its times; ``ConflictError`` when its id is taken."""
        now = await self.now_ms()
        added = replace(record, created_ms=now, updated_ms=now)
        await self._write(self._insert(reencryptions).values({**asdict(added), "state": added.state.value}))
        return added

    async def find_reencryption(self, job_id: str) -> ReencryptionRecord | None:
        """Return a job."""
        row = await self._first(select(reencryptions).where(reencryptions.c.id == job_id))
        return None if row is None else _job(row)

    async def reencryptions(
        self, field_id: str | None = None, *, after: tuple[int, str] | None = None, limit: int | None = None
    ) -> list[ReencryptionRecord]:
        """Return jobs of a field, or all, oldest first; ``after`` is when the last one seen began, and its id."""
        query = select(reencryptions).order_by(reencryptions.c.created_ms, reencryptions.c.id)
        if field_id is not None:
            query = query.where(reencryptions.c.field_id == field_id)
        if after is not None:
            query = query.where(tuple_(reencryptions.c.created_ms, reencryptions.c.id) > tuple_(*after))
        return [_job(row) for row in await self._all(query.limit(limit))]

    async def newest_reencryptions(
        self, field_id: str | None = None, *, before: tuple[int, str] | None = None, limit: int
    ) -> list[ReencryptionRecord]:
        """Return jobs of a field, or all, the newest first; ``before`` is when the last one seen began, and its id."""
        began = tuple_(reencryptions.c.created_ms, reencryptions.c.id)
        query = select(reencryptions).order_by(reencryptions.c.created_ms.desc(), reencryptions.c.id.desc())
        if field_id is not None:
            query = query.where(reencryptions.c.field_id == field_id)
        if before is not None:
            query = query.where(began < tuple_(*before))
        return [_job(row) for row in await self._all(query.limit(limit))]

    async def change_reencryption(self, job_id: str, expected: ReencryptionState, **changes: Any) -> ReencryptionRecord:
        """Change columns of a job that is in state ``expected`` and return it.

        Raises:
            InvalidInputError: a column that never changes.
            KeyNotFoundError: no such job.
            ConflictError: the job is in another state.
        """
        if fixed := sorted(changes.keys() - _CHANGEABLE):
            raise InvalidInputError(f"these columns of a re-encryption never change: {', '.join(fixed)}")
        values = changes | {"updated_ms": await self.now_ms()}
        if "state" in values:
            values["state"] = ReencryptionState(values["state"]).value
        of_job = and_(reencryptions.c.id == job_id, reencryptions.c.state == expected.value)
        row = await self._write(update(reencryptions).where(of_job).values(values).returning(reencryptions))
        if row is not None:
            return _job(row)
        found = await self.find_reencryption(job_id)
        if found is None:
            raise KeyNotFoundError(f"no re-encryption has the id {job_id!r}")
        raise ConflictError(f"re-encryption {job_id} is {found.state}, no longer {expected}; look again")

    async def cut_chunk(
        self,
        job_id: str,
        expected_frontier: str | None,
        new_frontier: str | None,
        *,
        low: str | None,
        high: str | None,
        exhausted: bool,
        owner: str,
        ttl_ms: int,
    ) -> ChunkRecord:
        """Append a chunk, leased to ``owner``, and move the job's frontier.

        Raises:
            ConflictError: the frontier moved, was exhausted, or the job is not running.
        """
        _require_owner(owner, ttl_ms)
        now = await self.now_ms()
        is_next = and_(
            reencryptions.c.id == job_id,
            reencryptions.c.state == ReencryptionState.RUNNING.value,
            reencryptions.c.exhausted.is_(False),
            reencryptions.c.frontier.is_not_distinct_from(expected_frontier),
        )
        moved = update(reencryptions).where(is_next)
        moved = moved.values(frontier=new_frontier, exhausted=exhausted, updated_ms=now)
        if await self._write(moved.returning(reencryptions.c.id)) is None:
            raise ConflictError(f"re-encryption {job_id} has moved on or is not running; look again")
        # The job's row is locked by now, so that nobody else can take the same number.
        of_job = reencryption_chunks.c.job_id == job_id
        last = await self._first(select(func.max(reencryption_chunks.c.number).label("number")).where(of_job))
        number = (last["number"] if last is not None and last["number"] is not None else 0) + 1
        chunk = ChunkRecord(job_id, number, low, high, owner=owner, token=1, until_ms=now + ttl_ms)
        await self._write(self._insert(reencryption_chunks).values(_row_of(chunk)))
        return chunk

    async def claim_chunk(self, job_id: str, owner: str, ttl_ms: int) -> ChunkRecord | None:
        """Lease the first unfinished chunk that is free, expired or ours; the token grows when the owner changes."""
        _require_owner(owner, ttl_ms)
        self._require_writing()
        now = await self.now_ms()
        table = reencryption_chunks
        is_ours = table.c.owner.is_not_distinct_from(owner)
        is_open = and_(table.c.job_id == job_id, table.c.done.is_(False))
        can_claim = and_(is_open, or_(table.c.owner.is_(None), is_ours, table.c.until_ms <= now))
        first = select(table.c.number).where(can_claim).order_by(table.c.number).limit(1)
        # A chunk that somebody else is claiming or saving at this moment is somebody else's.
        found = await self._first(first.with_for_update(skip_locked=True))
        if found is None:
            return None
        claim = update(table).where(table.c.job_id == job_id, table.c.number == found["number"])
        claim = claim.values(
            owner=owner, until_ms=now + ttl_ms, token=case((is_ours, table.c.token), else_=table.c.token + 1)
        )
        row = await self._write(claim.returning(table))
        return None if row is None else as_record(ChunkRecord, reencryption_chunks, row)

    async def save_chunk(self, chunk: ChunkRecord, ttl_ms: int) -> ChunkRecord:
        """Write a chunk's cursor, counts, failures and end, and renew its lease; a ``ttl_ms`` of 0 gives it back.

        Of the failures the first ``MAX_FAILURES`` are kept. An expired lease that nobody took holds still.

        Raises:
            ConflictError: another owner has it, or it is finished.
        """
        if ttl_ms < 0:
            raise InvalidInputError("ttl_ms is a number of milliseconds, zero or more")
        table = reencryption_chunks
        is_ours = and_(
            table.c.job_id == chunk.job_id,
            table.c.number == chunk.number,
            table.c.owner == chunk.owner,
            table.c.token == chunk.token,
            table.c.done.is_(False),
        )
        is_kept = ttl_ms > 0 and not chunk.done
        values = {name: value for name, value in _row_of(chunk).items() if name in _SAVED}
        values |= {
            "failures": chunk.failures[:MAX_FAILURES],
            "owner": chunk.owner if is_kept else None,
            "until_ms": self._now() + ttl_ms if is_kept else 0,
        }
        row = await self._write(update(table).where(is_ours).values(values).returning(table))
        if row is None:
            raise ConflictError(
                f"chunk {chunk.number} of re-encryption {chunk.job_id} was lost to another owner; leave it to that one"
            )
        return as_record(ChunkRecord, reencryption_chunks, row)

    async def ailing_reencryptions(self, *, among: int) -> list[AilingReencryption]:
        """Return the last jobs of their fields with something wrong, the newest first.

        Chunks that are unfinished and whose lease has expired are those of a running job. Only the newest ``among``
        jobs are looked at; one that only read, or was cancelled, counts for none.
        """
        newest = select(reencryptions).order_by(reencryptions.c.created_ms.desc(), reencryptions.c.id).limit(among)
        last: dict[str, ReencryptionRecord] = {}
        for job in map(_job, await self._all(newest)):
            if job.state is not ReencryptionState.CANCELLED and not job.dry_run:
                last.setdefault(job.field_id, job)
        table = reencryption_chunks
        running = [job.id for job in last.values() if job.state is ReencryptionState.RUNNING]
        is_abandoned = and_(table.c.done.is_(False), table.c.owner.is_not(None), table.c.until_ms <= self._now())
        abandoned = await self._by_job(func.count(), and_(table.c.job_id.in_(running), is_abandoned))
        has_failed = and_(table.c.job_id.in_([job.id for job in last.values()]), text("failed > 0"))
        failed = await self._by_job(func.sum(table.c.failed), has_failed)
        return [
            AilingReencryption(job, abandoned.get(job.id, 0), failed.get(job.id, 0))
            for job in last.values()
            if job.id in abandoned or job.id in failed
        ]

    async def _by_job(self, number: ColumnElement[int], condition: ColumnElement[bool]) -> dict[str, int]:
        of_job = reencryption_chunks.c.job_id
        return {
            job: int(each) for job, each in await self._tuples(select(of_job, number).where(condition).group_by(of_job))
        }

    async def chunks(self, job_id: str) -> list[ChunkRecord]:
        """Return a job's chunks by number."""
        table = reencryption_chunks
        query = select(table).where(table.c.job_id == job_id).order_by(table.c.number)
        return [as_record(ChunkRecord, reencryption_chunks, row) for row in await self._all(query)]

    async def chunk_totals(self, job_ids: Collection[str]) -> dict[str, ChunkTotals]:
        """Return what the chunks of jobs come to, by the jobs' ids; of one without chunks, nothing."""
        table, now = reencryption_chunks, await self.now_ms()
        is_held = and_(table.c.done.is_(False), table.c.owner.is_not(None), table.c.until_ms > now)
        sums = [func.sum(table.c[name]).label(name) for name in _COUNTS]
        query = select(
            table.c.job_id,
            func.count().label("chunks"),
            func.sum(case((table.c.done.is_(True), 1), else_=0)).label("done"),
            func.sum(case((is_held, 1), else_=0)).label("held"),
            *sums,
        )
        query = query.where(table.c.job_id.in_(list(job_ids))).group_by(table.c.job_id)
        names = ("chunks", "done", "held", *_COUNTS)
        return {
            row["job_id"]: ChunkTotals(**{name: int(row[name]) for name in names}) for row in await self._all(query)
        }

    async def failed_chunks(self, job_id: str, limit: int) -> list[ChunkRecord]:
        """Return a job's first chunks in which a row failed."""
        table = reencryption_chunks
        query = select(table).where(table.c.job_id == job_id, table.c.failed > 0).order_by(table.c.number).limit(limit)
        return [as_record(ChunkRecord, reencryption_chunks, row) for row in await self._all(query)]


def _require_owner(owner: str, ttl_ms: int) -> None:
    if not owner or ttl_ms <= 0:
        raise InvalidInputError("a chunk's lease needs an owner and a positive ttl_ms")


def _row_of(chunk: ChunkRecord) -> Mapping[str, Any]:
    return {name: getattr(chunk, name) for name in reencryption_chunks.columns.keys()}  # noqa: SIM118


def _job(row: RowMapping) -> ReencryptionRecord:
    return as_record(ReencryptionRecord, reencryptions, row)
