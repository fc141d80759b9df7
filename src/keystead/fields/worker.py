"""One worker of a re-encryption: leases chunks of the key space and brings their rows to the target.

Three things go on at once: one thread reads batches and does their cryptography while another writes the batch before,
and the store learns meanwhile how far the chunk is. A batch is committed only after the one before it is recorded, so
that a kill undoes the record of one batch at most.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from functools import partial
from typing import Final, TypeVar

from keystead.errors import ConflictError, ImportEndedError, KMSError, StoreUnavailableError
from keystead.fields.progress import key_text, parse_key
from keystead.fields.sealing import Work, WorksOnRows
from keystead.fields.shift import Shift
from keystead.ports import MAX_FAILURES, ChunkRecord, ReencryptionRecord, ReencryptionState, RowFailure
from keystead.ports.rows import ApplicationRows, Row, RowChange, RowKey

T = TypeVar("T")

CHUNK_BATCHES: Final = 20
AHEAD: Final = 2
"""How many batches are read ahead at most: with one, its thread would wait until somebody asks for another."""
LEASE_MS: Final = 30_000
LOOK_S: Final = 0.25
"""How long a worker goes on before it looks whether the job was paused."""
WAIT_S: Final = 0.25
"""How long a worker without work waits before it looks again."""
TRIES: Final = 4
"""How often rows that somebody else held are tried again at once; from the third time on they are waited for."""
PATIENCE_S: Final = (0.1, 0.5, 2.0)
"""Waits before what failed for a passing reason is tried again."""


class LeaveChunkError(KMSError):
    """The chunk is no longer to be worked on here; what was about to be written is undone."""


class LostChunkError(LeaveChunkError):
    """Another worker has it."""


@dataclass(frozen=True, slots=True)
class _Batch:
    rows: int
    last: RowKey | None
    is_end: bool
    work: Work


@dataclass(slots=True)
class _Place:
    """Where in a chunk the thread that reads ahead is."""

    after: RowKey | None
    until: RowKey | None
    is_end: bool = False


@dataclass(slots=True)
class _Counts:
    read: int = 0
    rewritten: int = 0
    skipped: int = 0
    contended: int = 0
    failed: int = 0
    erased: int = 0
    imported: int = 0


class Worker:
    """See the module. Runs in a thread of its own, as ``owner``, a name no other worker has."""

    def __init__(self, shift: Shift, owner: str) -> None:
        self._shift = shift
        self._owner = owner
        self._bridge = shift.bridge
        self._stop = shift.stop
        self._limit = shift.batch_rows
        self._is_running = True
        self._look_at = 0.0

    def run(self) -> None:
        """Work until no chunk is left, the job is paused or cancelled, or everything stops."""
        self._reading, self._writing = self._shift.rows(), self._shift.rows()
        self._ahead_sealer, self._sealer = self._shift.sealer(self._reading), self._shift.sealer(self._writing)
        try:
            with ThreadPoolExecutor(1, "keystead-reencrypt") as self._ahead:
                while (chunk := self._next_chunk()) is not None:
                    self._work_through(chunk)
        finally:
            self._reading.close()
            self._writing.close()

    def _next_chunk(self) -> ChunkRecord | None:
        """Return a chunk leased to this worker; None when there is nothing left to do, for now or for good."""
        while not self._stop.is_set():
            job, chunk, is_over = self._patiently(lambda: self._bridge.ask(self._claim()))
            if chunk is not None or job.state is not ReencryptionState.RUNNING or is_over:
                return chunk
            if job.exhausted:
                # Others have what is left; should one of them die, its lease ends and the chunk is ours.
                self._stop.wait(WAIT_S)
                continue
            with contextlib.suppress(ConflictError):
                high = self._upper_key(job)
                return self._patiently(partial(self._ask_to_cut, job, high))
        return None

    def _ask_to_cut(self, job: ReencryptionRecord, high: str | None) -> ChunkRecord:
        return self._bridge.ask(self._cut(job, high))

    def _upper_key(self, job: ReencryptionRecord) -> str | None:
        """Return the last key of the next chunk; None where the rest is no more than a chunk."""
        frontier = parse_key(job.frontier)
        found = self._patiently(lambda: self._reading.upper_key(frontier, job.batch_rows * CHUNK_BATCHES))
        return None if found is None else key_text(found)

    async def _claim(self) -> tuple[ReencryptionRecord, ChunkRecord | None, bool]:
        """Return the job, a chunk of it that was free, and whether every chunk is done."""
        async with self._shift.store.transaction() as work:
            job = await work.find_reencryption(self._shift.job.id)
            if job is None or job.state is not ReencryptionState.RUNNING:
                return job or replace(self._shift.job, state=ReencryptionState.CANCELLED), None, True
            chunk = await work.claim_chunk(job.id, self._owner, LEASE_MS)
            if chunk is not None or not job.exhausted:
                return job, chunk, False
            return job, None, all(each.done for each in await work.chunks(job.id))

    async def _cut(self, job: ReencryptionRecord, high: str | None) -> ChunkRecord:
        async with self._shift.store.transaction() as work:
            return await work.cut_chunk(
                job.id,
                job.frontier,
                high or job.frontier,
                low=job.frontier,
                high=high,
                exhausted=high is None,
                owner=self._owner,
                ttl_ms=LEASE_MS,
            )

    def _work_through(self, chunk: ChunkRecord) -> None:
        place = _Place(parse_key(chunk.cursor or chunk.low), parse_key(chunk.high))
        ahead = deque(self._ahead.submit(self._prepare, place) for _ in range(AHEAD))
        saving: Future[bool] | None = None
        saved = chunk

        def settle() -> None:
            """Wait for the record of the batch before, and learn from it whether to go on."""
            nonlocal saving, saved
            if saving is None:
                return
            try:
                is_running = saving.result()
            except ConflictError as lost:
                raise LostChunkError(str(lost)) from None
            saving, saved = None, chunk
            if not is_running or self._stop.is_set():
                raise LeaveChunkError("the job is not running")

        try:
            while True:
                batch = ahead.popleft().result()
                if not batch.is_end:
                    ahead.append(self._ahead.submit(self._prepare, place))
                counts = _Counts(read=batch.rows, skipped=batch.work.skipped, erased=batch.work.erased)
                failures = self._write(batch.work, counts, settle)
                settle()
                chunk = _after(chunk, batch, counts, failures)
                saving = self._bridge.begin(self._save(chunk, counts))
                if batch.is_end:
                    return settle()
        except LostChunkError:
            return None
        except (LeaveChunkError, ImportEndedError) as left:
            if not saved.done:
                with contextlib.suppress(ConflictError):
                    self._bridge.ask(self._give_back(saved))
            if isinstance(left, ImportEndedError):
                raise
        finally:
            # The next chunk reads over the same connection.
            wait([each for each in ahead if not each.cancel()])

    def _prepare(self, place: _Place) -> _Batch:
        """Read the next batch and do its cryptography."""
        if place.is_end:
            return _Batch(0, None, True, Work())
        self._shift.pace.take(self._limit, self._stop)
        rows = self._patiently(lambda: self._reading.read(place.after, place.until, self._limit))
        work = self._patiently(lambda: self._work_on(self._ahead_sealer, self._reading, rows))
        last = place.after = rows[-1][: self._reading.layout.key] if rows else None
        place.is_end = len(rows) < self._limit
        return _Batch(len(rows), last, place.is_end, work)

    def _work_on(self, sealer: WorksOnRows, table: ApplicationRows, rows: Sequence[Row]) -> Work:
        tokens = None
        if sealer.has_tokens:
            tokens = table.read_tokens([row[table.layout.record[0]] for row in rows])
        return sealer.work_on(rows, tokens)

    def _write(self, work: Work, counts: _Counts, settle: Callable[[], None]) -> list[RowFailure]:
        """Write a batch, the rows that were held or edited meanwhile as well; return the rows that failed."""
        failed = list(work.failures)
        changes = work.changes
        if self._shift.job.dry_run:
            counts.rewritten += len(changes)
            counts.imported += _imported(changes)
            changes = []
        for attempt in range(1 + TRIES):
            if not changes:
                break
            if attempt:
                self._stop.wait(0.005 * 4**attempt)
                changes = self._look_again(changes, counts, failed)
            left = self._swap(changes, settle, failed, wait=attempt > 1)
            counts.rewritten += len(changes) - len(left)
            counts.imported += _imported(changes) - _imported(left)
            if not attempt:
                counts.contended += len(left)
            changes = left
        failed += [(change.key, "contended") for change in changes]
        # A row that could not be written for a reason of its own was not rewritten after all.
        refused = {key for key, reason in failed if reason == ConflictError.code}
        counts.rewritten -= len(refused)
        counts.imported -= sum(1 for change in work.changes if change.is_imported and change.key in refused)
        counts.failed += len(failed)
        return [RowFailure(key_text(key), reason) for key, reason in failed[:MAX_FAILURES]]

    def _look_again(
        self, changes: Sequence[RowChange], counts: _Counts, failed: list[tuple[RowKey, str]]
    ) -> list[RowChange]:
        """Return what is still to be done for rows that were held or edited."""
        rows = self._patiently(lambda: self._writing.read_keys([change.key for change in changes]))
        work = self._patiently(lambda: self._work_on(self._sealer, self._writing, rows))
        counts.skipped += len(changes) - len(rows) + work.skipped
        failed += work.failures
        return work.changes

    def _swap(
        self,
        changes: Sequence[RowChange],
        settle: Callable[[], None],
        failed: list[tuple[RowKey, str]],
        *,
        wait: bool,
    ) -> list[RowChange]:
        """Write rows and return those that somebody else holds or has edited; halves find the one that cannot be."""
        # One row at a time where rows are waited for: who holds one lock only cannot be part of a deadlock.
        if wait and len(changes) > 1:
            return [left for each in changes for left in self._swap([each], settle, failed, wait=True)]
        if not changes:
            return []
        try:
            written = self._patiently(lambda: self._writing.swap(changes, before_commit=settle, wait=wait))
        except ConflictError as conflict:
            if len(changes) == 1:
                failed.append((changes[0].key, conflict.code))
                return []
            half = len(changes) // 2
            return [
                *self._swap(changes[:half], settle, failed, wait=wait),
                *self._swap(changes[half:], settle, failed, wait=wait),
            ]
        return [] if len(written) == len(changes) else [change for change in changes if change.key not in written]

    async def _save(self, chunk: ChunkRecord, counts: _Counts) -> bool:
        """Record how far the chunk is, and return whether the job is still running."""
        for pause_s in (*PATIENCE_S, None):
            try:
                async with self._shift.store.transaction() as work:
                    if time.monotonic() >= self._look_at:
                        job = await work.find_reencryption(chunk.job_id)
                        self._is_running = job is not None and job.state is ReencryptionState.RUNNING
                        self._look_at = time.monotonic() + LOOK_S
                    await work.save_chunk(chunk, LEASE_MS)
                break
            except StoreUnavailableError:
                if pause_s is None:
                    raise
                await asyncio.sleep(pause_s)
        try:
            self._shift.told({name: getattr(counts, name) for name in ("read", "rewritten", "failed", "imported")})
        except Exception as exc:
            # The caller's own failure is the caller's to see, and nothing of it is the database's.
            self._shift.failure = exc
            self._stop.set()
        return self._is_running

    async def _give_back(self, chunk: ChunkRecord) -> None:
        async with self._shift.store.transaction() as work:
            await work.save_chunk(chunk, 0)

    def _patiently(self, step: Callable[[], T]) -> T:
        """Do ``step``, again after a while where it failed for a passing reason."""
        for pause_s in PATIENCE_S:
            try:
                return step()
            except ConflictError:
                raise
            except KMSError as exc:
                if not exc.retryable or self._stop.wait(pause_s):
                    raise
        return step()


def _imported(changes: Sequence[RowChange]) -> int:
    return sum(change.is_imported for change in changes)


def _after(chunk: ChunkRecord, batch: _Batch, counts: _Counts, failures: Sequence[RowFailure]) -> ChunkRecord:
    """Return a chunk after a batch."""
    return replace(
        chunk,
        cursor=chunk.cursor if batch.last is None else key_text(batch.last),
        done=batch.is_end,
        read=chunk.read + counts.read,
        rewritten=chunk.rewritten + counts.rewritten,
        skipped=chunk.skipped + counts.skipped,
        contended=chunk.contended + counts.contended,
        failed=chunk.failed + counts.failed,
        erased=chunk.erased + counts.erased,
        failures=(*chunk.failures, *failures)[:MAX_FAILURES],
    )
