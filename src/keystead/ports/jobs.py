"""How jobs that run from time to time have ended."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Protocol


@dataclass(frozen=True, slots=True)
class JobRun:
    """How a job ended last, on whichever node: ``error_code`` is why it failed, None where it did not."""

    name: str
    node: str
    error_code: str | None
    ended_at: datetime
    duration_ms: int


class JobRunRows(Protocol):
    """The last run of each job."""

    async def keep_job_run(self, run: JobRun) -> None:
        """Keep how a job ended, in place of how it ended before: nodes' clocks differ, and are not compared."""

    async def job_runs(self) -> list[JobRun]:
        """Return the last run of each job, by name."""
