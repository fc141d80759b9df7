"""What the store keeps of encrypted fields: which are registered, and the jobs that re-encrypt their columns."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final, Protocol

MAX_FAILURES: Final = 20
"""How many rows that failed a chunk names; all are counted."""


@dataclass(frozen=True, slots=True)
class FieldRecord:
    """A registered field: the keyrings it is under, and where its column is.

    Of a field in several places each is registered: the first by the field's id, others by ``<id>@<8 hex digits>``.
    ``keyring`` may be a pattern. ``record`` is the column by which a token index names its rows, where there is one.
    ``indexed_version`` is the highest version of its index keyring that
    every row is known to have hashes of; None until a re-encryption job has told one.
    """

    id: str
    keyring: str
    index_keyring: str | None
    locator: str
    indexed_version: int | None = None
    record: str | None = None


class FieldRows(Protocol):
    """Registered fields."""

    async def fields(
        self, index_keyring: str | None = None, *, after: str = "", limit: int | None = None
    ) -> list[FieldRecord]:
        """Return the registered fields by id, of an index keyring or all; those ``after`` an id."""

    async def find_field(self, field_id: str) -> FieldRecord | None:
        """Return a registered field."""

    async def put_field(self, record: FieldRecord) -> None:
        """Register a field, or change what is registered under its id."""

    async def note_indexed(self, field_id: str, version: int) -> bool:
        """Raise a field's ``indexed_version`` to ``version``; False when no such field is registered."""

    async def drop_field(self, field_id: str) -> bool:
        """Remove a registration; False when absent."""


class ReencryptionState(StrEnum):
    """Where a re-encryption job stands."""

    RUNNING = "running"
    PAUSED = "paused"
    DONE = "done"
    CANCELLED = "cancelled"


@dataclass(frozen=True, slots=True)
class ReencryptionRecord:
    """A re-encryption job. ``target``, ``frontier`` are JSON that the job alone reads; the store fills the times.

    ``frontier`` is the last key that was cut into a chunk, None before the first; ``exhausted`` says that no key
    lies beyond it.
    """

    id: str
    field_id: str
    locator: str
    batch_rows: int
    target: str
    dry_run: bool = False
    state: ReencryptionState = ReencryptionState.RUNNING
    frontier: str | None = None
    exhausted: bool = False
    rows_total: int | None = None
    created_ms: int = 0
    updated_ms: int = 0


@dataclass(frozen=True, slots=True)
class RowFailure:
    """A row that a job left as it was: its key as JSON, and a reason's code. Never a value."""

    key: str
    reason: str


@dataclass(frozen=True, slots=True)
class ChunkRecord:
    """A part of a job's rows, ``low`` < key <= ``high`` (JSON; None = no bound), leased to ``owner`` by ``token``.

    ``cursor`` is the last key that is done. The counts are of the whole chunk, over all its owners.
    """

    job_id: str
    number: int
    low: str | None
    high: str | None
    cursor: str | None = None
    done: bool = False
    owner: str | None = None
    token: int = 0
    until_ms: int = 0
    read: int = 0
    rewritten: int = 0
    skipped: int = 0
    contended: int = 0
    failed: int = 0
    erased: int = 0
    failures: tuple[RowFailure, ...] = ()


@dataclass(frozen=True, slots=True)
class ChunkTotals:
    """What the chunks of a job come to: how many there are, are done, and are worked on now; and their counts."""

    chunks: int = 0
    done: int = 0
    held: int = 0
    read: int = 0
    rewritten: int = 0
    skipped: int = 0
    contended: int = 0
    failed: int = 0
    erased: int = 0


@dataclass(frozen=True, slots=True)
class AilingReencryption:
    """What is wrong with a job: how many of its chunks nobody works on any more, and how many rows were left as is."""

    job: ReencryptionRecord
    abandoned: int
    failed: int


class ReencryptionRows(Protocol):
    """Re-encryption jobs, and the chunks that their workers lease. Every worker has an owner's name of its own."""

    async def add_reencryption(self, record: ReencryptionRecord) -> ReencryptionRecord:
        """Add a job and return it with its times; ``ConflictError`` when its id is taken."""

    async def find_reencryption(self, job_id: str) -> ReencryptionRecord | None:
        """Return a job."""

    async def reencryptions(
        self, field_id: str | None = None, *, after: tuple[int, str] | None = None, limit: int | None = None
    ) -> list[ReencryptionRecord]:
        """Return jobs of a field, or all, oldest first; ``after`` is when the last one seen began, and its id."""

    async def newest_reencryptions(
        self, field_id: str | None = None, *, before: tuple[int, str] | None = None, limit: int
    ) -> list[ReencryptionRecord]:
        """Return jobs of a field, or all, the newest first; ``before`` is when the last one seen began, and its id."""

    async def change_reencryption(self, job_id: str, expected: ReencryptionState, **changes: Any) -> ReencryptionRecord:
        """Change columns of a job that is in state ``expected``; ``ConflictError`` when it is in another.

        Columns: state, batch_rows, target, frontier, exhausted, rows_total.
        """

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

    async def claim_chunk(self, job_id: str, owner: str, ttl_ms: int) -> ChunkRecord | None:
        """Lease the first unfinished chunk that is free, expired or ours; the token grows when the owner changes."""

    async def save_chunk(self, chunk: ChunkRecord, ttl_ms: int) -> ChunkRecord:
        """Write a chunk's cursor, counts, failures and end, and renew its lease; a ``ttl_ms`` of 0 gives it back.

        Raises:
            ConflictError: another owner has it, or it is finished.
        """

    async def ailing_reencryptions(self, *, among: int) -> list[AilingReencryption]:
        """Return the last jobs of their fields with something wrong, the newest first.

        Chunks that are unfinished and whose lease has expired are those of a running job. Only the newest ``among``
        jobs are looked at; one that only read, or was cancelled, counts for none.
        """

    async def chunks(self, job_id: str) -> list[ChunkRecord]:
        """Return a job's chunks by number."""

    async def chunk_totals(self, job_ids: Collection[str]) -> dict[str, ChunkTotals]:
        """Return what the chunks of jobs come to, by the jobs' ids; of one without chunks, nothing."""

    async def failed_chunks(self, job_id: str, limit: int) -> list[ChunkRecord]:
        """Return a job's first chunks in which a row failed."""
