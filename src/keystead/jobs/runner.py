"""Running named jobs under a lease, so that of N processes one does each.

The lease's time is the database's; it is renewed while the job runs, and a job that lost it is cancelled. A job
that changes rows over a long time checks its token (``UnitOfWork.check_lease``) in the transaction that writes.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from keystead.errors import ConflictError, InvalidInputError, KeyNotFoundError, KMSError, StorageOperationError
from keystead.ports import Clock, JobRun, KeyStore, Lease

log = logging.getLogger("keystead.jobs")
LEASE_TTL_S: Final = 30.0


@dataclass(frozen=True, slots=True)
class Job:
    """A job's name, how often it runs in one process, and what it does (given the lease it runs under).

    ``may_go_on`` says of a failure, cancellation included, that what the job began may still be under way elsewhere:
    then the lease is not given back, and expires by itself.
    """

    name: str
    every_s: float
    action: Callable[[Lease], Awaitable[object]]
    may_go_on: Callable[[BaseException], bool] = lambda failure: False


@dataclass(frozen=True, slots=True)
class JobReport:
    """How one due job ended: ``done``, ``held`` or ``failed`` with an error code.

    ``held``: it runs already, here or in another process.
    """

    name: str
    outcome: str
    error_code: str | None = None


@dataclass(frozen=True, slots=True)
class JobStanding:
    """A job of this process: how often it runs, when it does again, and who runs it now, a node's name or None.

    ``last`` is how it ended last on any node, as the store has it; None where it has not yet.
    """

    name: str
    every_s: float
    due_in_s: float
    held_by: str | None = None
    last: JobRun | None = None


class JobRunner:
    """Holds jobs and runs those that are due."""

    def __init__(
        self, store: KeyStore, owner: Callable[[], str], clock: Clock, *, lease_ttl_s: float = LEASE_TTL_S
    ) -> None:
        self._store = store
        self._owner = owner
        self._clock = clock
        self._ttl_s = lease_ttl_s
        self._jobs: dict[str, Job] = {}
        self._next: dict[str, float] = {}
        self._running: set[str] = set()

    def add(self, job: Job, *, wait: bool = False) -> None:
        """Add a job; it is due at once, or if ``wait`` after its interval."""
        if job.name in self._jobs:
            raise InvalidInputError(f"a job named {job.name!r} exists already")
        self._jobs[job.name] = job
        self._next[job.name] = self._clock.monotonic() + (job.every_s if wait else 0.0)

    async def run_due(self) -> list[JobReport]:
        """Run every due job whose lease is free, one after the other; a failing job does not stop the others."""
        now = self._clock.monotonic()
        reports = []
        for job in list(self._jobs.values()):
            if self._next[job.name] <= now:
                self._next[job.name] = now + job.every_s
                reports.append(await self._run(job))
        return reports

    async def standings(self) -> list[JobStanding]:
        """Return the jobs by name, and who holds their leases."""
        now = self._clock.monotonic()
        async with self._store.reading() as work:
            now_ms = await work.now_ms()
            leases = {name: await work.find_lease(name) for name in sorted(self._jobs)}
            last = {run.name: run for run in await work.job_runs()}
        return [
            JobStanding(
                name,
                self._jobs[name].every_s,
                max(0.0, self._next[name] - now),
                lease.owner if lease is not None and lease.owner and lease.until_ms > now_ms else None,
                last.get(name),
            )
            for name, lease in leases.items()
        ]

    async def run_now(self, name: str) -> JobReport:
        """Run a job although it is not due yet, if its lease is free.

        Raises:
            KeyNotFoundError: this process has no job of that name.
        """
        job = self._jobs.get(name)
        if job is None:
            raise KeyNotFoundError(f"no job {name!r}; there are: {', '.join(sorted(self._jobs))}")
        self._next[name] = self._clock.monotonic() + job.every_s
        return await self._run(job)

    async def run_alone(self, job: Job, *, is_kept: bool = False) -> bool:
        """Run a job now if nobody holds its lease; return whether it ran, and raise what it raises.

        Args:
            is_kept: whether the store keeps how it ended.
        """
        asked = self._clock.monotonic()
        async with self._store.transaction() as work:
            lease = await work.claim_lease(job.name, self._owner(), int(self._ttl_s * 1000))
        if lease is None:
            return False
        try:
            await self._under_lease(job, lease, asked + self._ttl_s)
        except BaseException as failure:
            if not job.may_go_on(failure):
                told = is_kept and isinstance(failure, Exception)
                await self._give_back(lease, self._run_of(job, asked, failure) if told else None)
            raise
        await self._give_back(lease, self._run_of(job, asked) if is_kept else None)
        return True

    async def _run(self, job: Job) -> JobReport:
        if job.name in self._running:
            # This process has the lease: it would be given to it once more.
            return JobReport(job.name, "held")
        self._running.add(job.name)
        try:
            is_done = await self.run_alone(job, is_kept=True)
        except Exception as exc:
            code = code_of(exc)
            log.warning("job failed: %s: %s", job.name, code, exc_info=True)
            return JobReport(job.name, "failed", code)
        finally:
            self._running.discard(job.name)
        return JobReport(job.name, "done" if is_done else "held")

    def _run_of(self, job: Job, began: float, failure: BaseException | None = None) -> JobRun:
        code = None if failure is None else code_of(failure)
        duration_ms = round(1000 * (self._clock.monotonic() - began))
        return JobRun(job.name, self._owner(), code, self._clock.now(), duration_ms)

    async def _give_back(self, lease: Lease, run: JobRun | None) -> None:
        """Drop the lease, and keep how the job ended with it: no transaction more.

        Where that fails the lease expires by itself, and a cancelled job stays cancelled.
        """
        with contextlib.suppress(StorageOperationError):
            async with self._store.transaction() as work:
                await work.drop_lease(lease)
                if run is not None:
                    await work.keep_job_run(run)

    async def _under_lease(self, job: Job, lease: Lease, held_until: float) -> None:
        action = asyncio.ensure_future(job.action(lease))
        heart = asyncio.ensure_future(self._renew(job, lease, held_until))
        try:
            await asyncio.wait({action, heart}, return_when=asyncio.FIRST_COMPLETED)
            if not action.done():
                action.cancel()
                await asyncio.wait({action})
                raise ConflictError(f"job {job.name!r} lost its lease and was stopped")
            if action.cancelled():
                # Nobody cancelled us: it is the job's failure, and must not end whoever runs the jobs.
                raise KMSError(f"job {job.name!r} cancelled itself")
            await action
        finally:
            for task in (action, heart):
                task.cancel()
            await asyncio.gather(action, heart, return_exceptions=True)

    async def _renew(self, job: Job, lease: Lease, held_until: float) -> None:
        """Renew the lease at a third of its time; end when it is lost, or the store is away for longer than that."""
        while self._clock.monotonic() < held_until:
            await asyncio.sleep(self._ttl_s / 3)
            asked = self._clock.monotonic()
            try:
                async with asyncio.timeout(held_until - asked), self._store.transaction() as work:
                    renewed = await work.claim_lease(job.name, self._owner(), int(self._ttl_s * 1000))
            except (StorageOperationError, TimeoutError):
                continue
            if renewed is None or renewed.token != lease.token:
                return
            held_until = asked + self._ttl_s


def code_of(failure: BaseException) -> str:
    """Return the code of a failure, ``unexpected`` where it is none of ours."""
    return failure.code if isinstance(failure, KMSError) else "unexpected"
