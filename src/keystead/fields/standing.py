"""How re-encryptions stand, from the store's rows alone: whoever asks need not be who works on them."""

from __future__ import annotations

from dataclasses import dataclass, field

from keystead.errors import KeyNotFoundError
from keystead.fields.surroundings import Manager
from keystead.ports import MAX_FAILURES, ChunkTotals, ReencryptionRecord, ReencryptionState, RowFailure


@dataclass(frozen=True, slots=True)
class ReencryptionStanding:
    """A re-encryption, and how far it is over all its workers, wherever they run."""

    job: ReencryptionRecord
    totals: ChunkTotals = field(default_factory=ChunkTotals)

    @property
    def is_worked_on(self) -> bool:
        """Whether a worker holds a part of it, and has told so lately."""
        return self.job.state is ReencryptionState.RUNNING and self.totals.held > 0

    @property
    def rows(self) -> int | None:
        """How many rows there are, as they were counted at the beginning; None before that."""
        total = self.job.rows_total
        return None if total is None else max(total, self.totals.read)

    @property
    def lasted_s(self) -> float | None:
        """How long it took from its beginning to its end, pauses among it; None while it has not ended."""
        has_ended = self.job.state in (ReencryptionState.DONE, ReencryptionState.CANCELLED)
        return (self.job.updated_ms - self.job.created_ms) / 1000 if has_ended else None

    def seconds_left(self, rows_per_s: float | None) -> float | None:
        """Return how long the rest takes at a pace; None where nobody can tell."""
        if not rows_per_s or self.rows is None:
            return None
        return (self.rows - self.totals.read) / rows_per_s


async def newest_reencryptions(
    km: Manager, field_id: str | None = None, *, before: tuple[int, str] | None = None, limit: int
) -> list[ReencryptionRecord]:
    """Return re-encryptions of a field, or all, the newest first; ``before`` as the store has it."""
    async with (await km.session()).surroundings.store.reading() as work:
        return await work.newest_reencryptions(field_id, before=before, limit=limit)


async def standings(km: Manager, *, before: tuple[int, str] | None = None, limit: int) -> list[ReencryptionStanding]:
    """Return re-encryptions and how far each is, the newest first; ``before`` as the store has it."""
    async with (await km.session()).surroundings.store.reading() as work:
        jobs = await work.newest_reencryptions(before=before, limit=limit)
        totals = await work.chunk_totals([job.id for job in jobs])
    return [ReencryptionStanding(job, totals.get(job.id, ChunkTotals())) for job in jobs]


async def standing(km: Manager, job_id: str) -> ReencryptionStanding:
    """Return how far a re-encryption is.

    Raises:
        KeyNotFoundError: no such job.
    """
    async with (await km.session()).surroundings.store.reading() as work:
        job = await work.find_reencryption(job_id)
        totals = await work.chunk_totals([job_id])
    if job is None:
        raise KeyNotFoundError(f"no re-encryption has the id {job_id!r}; `keystead reencryption list` shows them")
    return ReencryptionStanding(job, totals.get(job.id, ChunkTotals()))


async def failures(km: Manager, job_id: str) -> list[RowFailure]:
    """Return the first rows that a re-encryption left as they are, and why."""
    async with (await km.session()).surroundings.store.reading() as work:
        chunks = await work.failed_chunks(job_id, MAX_FAILURES)
    return [failure for chunk in chunks for failure in chunk.failures][:MAX_FAILURES]
