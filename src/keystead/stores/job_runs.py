"""The last run of each job as a row."""

from __future__ import annotations

from dataclasses import asdict
from typing import Final

from sqlalchemy import select

from keystead.ports import JobRun
from keystead.stores.records import as_record
from keystead.stores.tables import job_runs
from keystead.stores.transaction import Statements

MOST: Final = 100
"""Jobs that are read: there are a handful, and a name is never made by a request."""
_KEPT: Final = ("node", "error_code", "ended_at", "duration_ms")


class JobRunRows(Statements):
    """Last runs; ``keystead.ports.JobRunRows``."""

    async def keep_job_run(self, run: JobRun) -> None:
        """Keep how a job ended, in place of how it ended before."""
        insert = self._insert(job_runs).values(asdict(run))
        await self._write(
            insert.on_conflict_do_update(
                index_elements=["name"],
                set_={name: insert.excluded[name] for name in _KEPT},
            )
        )

    async def job_runs(self) -> list[JobRun]:
        """Return the last run of each job, by name."""
        rows = await self._all(select(job_runs).order_by(job_runs.c.name).limit(MOST))
        return [as_record(JobRun, job_runs, row) for row in rows]
