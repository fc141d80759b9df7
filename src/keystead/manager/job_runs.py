"""How jobs that run from time to time ended last, on whichever node."""

from __future__ import annotations

from typing import TYPE_CHECKING

from keystead.manager.audit_status import store_of
from keystead.ports import JobRun

if TYPE_CHECKING:
    from keystead.manager.core import ManagerCore


async def job_runs(manager: ManagerCore) -> list[JobRun]:
    """Return the last run of each job, by name. The manager need not be initialised."""
    store = await store_of(manager)
    async with store.reading() as work:
        return await work.job_runs()
