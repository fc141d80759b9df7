"""How far a re-encryption is: keys as the store keeps them, counts, and the report."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from keystead.errors import InvalidInputError
from keystead.ports import MAX_FAILURES, ChunkRecord, ReencryptionRecord, ReencryptionState, RowFailure
from keystead.ports.rows import RowKey


@dataclass(frozen=True, slots=True)
class ReencryptProgress:
    """How far a job is, over all its workers as far as this process knows. ``total`` was counted at the beginning.

    ``read_before`` rows had been read when this run began, ``seconds`` ago.
    """

    job_id: str
    total: int
    read: int
    rewritten: int
    failed: int
    seconds: float
    read_before: int = 0

    @property
    def seconds_left(self) -> float | None:
        """How long the rest takes at the pace of this run; None before there is one."""
        read = self.read - self.read_before
        return None if read <= 0 else self.seconds * max(0, self.total - self.read) / read


@dataclass(frozen=True, slots=True)
class ReencryptReport:
    """What became of a job, over all its workers and runs.

    Every row that was read was rewritten, skipped because nothing had to be done (or it was gone again), or failed and
    left as it is; ``failures`` name the first of those, with the code of the reason. Of all rows, ``erased`` are of
    subjects that were forgotten, and no index finds them any more; ``contended`` were
    held or edited by somebody else when they were to be written; the edit won, and they were looked at again.

    ``passed_by`` rows, at least, were found to need something still when everything had been read: their keys changed
    meanwhile, or a node wrote them that had not heard of a rotation. The next run finds them.

    ``imported`` of the rows that this run rewrote had a value of another system, which an importer read.

    ``indexed_version`` is the version of the index keyring that every row has hashes of now, where that is known, and
    ``finished_rotation`` says that a rotation of the index key ended with it. ``seconds`` is this run's time.
    """

    job_id: str
    state: ReencryptionState
    dry_run: bool
    read: int
    rewritten: int
    skipped: int
    contended: int
    failed: int
    erased: int = 0
    passed_by: int = 0
    failures: list[RowFailure] = field(default_factory=list)
    indexed_version: int | None = None
    finished_rotation: bool = False
    seconds: float = 0.0
    imported: int = 0

    @property
    def is_complete(self) -> bool:
        """Whether every row is as it should be."""
        return self.state is ReencryptionState.DONE and not self.failed and not self.passed_by


def total_of(chunks: Sequence[ChunkRecord]) -> dict[str, int]:
    """Return the counts of a job's chunks, added up."""
    names = ("read", "rewritten", "skipped", "contended", "failed", "erased")
    return {name: sum(getattr(chunk, name) for chunk in chunks) for name in names}


def is_worked_off(job: ReencryptionRecord, chunks: Sequence[ChunkRecord]) -> bool:
    """Whether a job runs of which nothing is left to do."""
    return job.state is ReencryptionState.RUNNING and job.exhausted and all(chunk.done for chunk in chunks)


def failures_of(chunks: Sequence[ChunkRecord]) -> list[RowFailure]:
    """Return why rows were left as they are, as many as a report tells."""
    return [failure for chunk in chunks for failure in chunk.failures][:MAX_FAILURES]


def key_text(key: RowKey) -> str:
    """Return a key as JSON.

    Raises:
        InvalidInputError: a column of a type that no key should have.
    """
    return json.dumps([_plain(part) for part in key], separators=(",", ":"), ensure_ascii=True)


def parse_key(text: str | None) -> RowKey | None:
    """Return the key of a JSON text, None for None."""
    return None if text is None else tuple(_parsed(part) for part in json.loads(text))


def _plain(part: object) -> object:
    if isinstance(part, bool) or part is None or isinstance(part, int | str | float):
        return part
    if isinstance(part, UUID):
        return {"uuid": str(part)}
    if isinstance(part, bytes | memoryview):
        return {"bytes": bytes(part).hex()}
    if isinstance(part, Decimal):
        return {"decimal": str(part)}
    if isinstance(part, datetime):
        return {"datetime": part.isoformat()}
    if isinstance(part, date):
        return {"date": part.isoformat()}
    raise InvalidInputError(f"rows cannot be read by a key of the type {type(part).__name__}; name another key_column")


def _parsed(part: Any) -> object:
    if not isinstance(part, dict):
        return part
    (kind, text), *_ = part.items()
    readers: dict[str, Callable[[str], object]] = {
        "uuid": UUID,
        "bytes": bytes.fromhex,
        "decimal": Decimal,
        "datetime": datetime.fromisoformat,
        "date": date.fromisoformat,
    }
    return readers[kind](text)
