"""The last run of each job, whoever writes it."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from keystead.ports import JobRun, KeyStore

NOW = datetime(2030, 1, 1, tzinfo=UTC)
SWEEP = JobRun("sweep", "one", None, NOW, 17)


async def test_of_each_job_the_last_run_is_kept_whatever_the_clocks_of_nodes_say(store: KeyStore) -> None:
    later = replace(SWEEP, node="two", error_code="conflict", ended_at=NOW - timedelta(days=1), duration_ms=2**40)
    for run in (replace(SWEEP, name="rotate"), SWEEP, later):
        async with store.transaction() as work:
            await work.keep_job_run(run)
    async with store.reading() as work:
        assert await work.job_runs() == [replace(SWEEP, name="rotate"), later]
