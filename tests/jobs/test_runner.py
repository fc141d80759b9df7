from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from keystead.errors import ConflictError, InvalidInputError, KeyRotationError, StoreUnavailableError
from keystead.jobs.runner import Job, JobReport, JobRunner
from keystead.ports import JobRun, KeyStore, Lease
from keystead.runtime.clock import SystemClock
from keystead.stores.memory import MemoryKeyStore
from tests.fakes.clock import FakeClock
from tests.fakes.world import CountingStore

TTL_S = 1.0


@pytest.fixture
async def store(clock: FakeClock) -> KeyStore:
    """An open store whose clock is the test's."""
    made = MemoryKeyStore(clock=clock)
    await made.open()
    return made


def runner(store: KeyStore, clock: FakeClock, owner: str = "one", **options: Any) -> JobRunner:
    return JobRunner(store, lambda: owner, clock, **options)


def counting(ran: list[Lease]) -> Callable[[Lease], Awaitable[None]]:
    async def action(lease: Lease) -> None:
        ran.append(lease)

    return action


async def test_a_job_runs_when_it_is_added_and_then_once_an_interval(store: KeyStore, clock: FakeClock) -> None:
    ran: list[Lease] = []
    jobs = runner(store, clock)
    jobs.add(Job("sweep", 60, counting(ran)))
    for _ in range(3):
        await jobs.run_due()
    assert len(ran) == 1
    clock.advance(59)
    assert await jobs.run_due() == []
    clock.advance(1)
    assert await jobs.run_due() == [JobReport("sweep", "done")]
    assert len(ran) == 2


async def test_a_job_may_wait_an_interval_first(store: KeyStore, clock: FakeClock) -> None:
    ran: list[Lease] = []
    jobs = runner(store, clock)
    jobs.add(Job("sweep", 60, counting(ran)), wait=True)
    assert await jobs.run_due() == []
    clock.advance(60)
    assert len(await jobs.run_due()) == 1


async def test_a_name_is_one_job(store: KeyStore, clock: FakeClock) -> None:
    jobs = runner(store, clock)
    jobs.add(Job("sweep", 60, counting([])))
    with pytest.raises(InvalidInputError, match="'sweep'"):
        jobs.add(Job("sweep", 60, counting([])))


async def test_of_many_processes_one_runs_a_job(store: KeyStore, clock: FakeClock) -> None:
    ran: list[Lease] = []
    runners = [runner(store, clock, f"process {number}") for number in range(6)]

    async def slow(lease: Lease) -> None:
        ran.append(lease)
        await asyncio.sleep(0.2)

    for jobs in runners:
        jobs.add(Job("sweep", 60, slow))
    reports = await asyncio.gather(*(jobs.run_due() for jobs in runners))
    assert sorted(report.outcome for [report] in reports) == ["done"] + ["held"] * 5
    assert len(ran) == 1


async def test_a_lease_is_given_back_so_that_the_next_process_need_not_wait(store: KeyStore, clock: FakeClock) -> None:
    ran: list[Lease] = []
    for owner in ("one", "two", "three"):
        jobs = runner(store, clock, owner)
        jobs.add(Job("sweep", 60, counting(ran)))
        assert await jobs.run_due() == [JobReport("sweep", "done")]
    assert [lease.owner for lease in ran] == ["one", "two", "three"]
    assert [lease.token for lease in ran] == sorted({lease.token for lease in ran})


async def test_a_process_that_died_keeps_a_job_no_longer_than_its_lease(store: KeyStore, clock: FakeClock) -> None:
    async with store.transaction() as work:
        await work.claim_lease("sweep", "dead", 30_000)
    jobs = runner(store, clock)
    jobs.add(Job("sweep", 1, counting([])))
    assert await jobs.run_due() == [JobReport("sweep", "held")]
    clock.advance(31)
    assert await jobs.run_due() == [JobReport("sweep", "done")]


@pytest.mark.parametrize(
    ("failure", "code"), [(KeyRotationError("no"), "key_rotation"), (ZeroDivisionError("odd"), "unexpected")]
)
async def test_a_failing_job_does_not_stop_the_others(
    store: KeyStore, clock: FakeClock, failure: Exception, code: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def fail(lease: Lease) -> None:
        raise failure

    ran: list[Lease] = []
    jobs = runner(store, clock)
    jobs.add(Job("bad", 60, fail))
    jobs.add(Job("good", 60, counting(ran)))
    assert await jobs.run_due() == [JobReport("bad", "failed", code), JobReport("good", "done")]
    assert code in caplog.text
    assert len(ran) == 1


async def test_a_job_that_lost_its_lease_is_cancelled(store: KeyStore) -> None:
    clock = SystemClock()
    jobs = JobRunner(store, lambda: "one", clock, lease_ttl_s=TTL_S)
    ended: list[str] = []

    async def long(lease: Lease) -> None:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            ended.append("cancelled")
            raise

    jobs.add(Job("sweep", 60, long))
    running = asyncio.create_task(jobs.run_due())
    await asyncio.sleep(TTL_S / 6)
    async with store.transaction() as work:
        lease = await work.claim_lease("sweep", "one", 1)
        assert lease is not None
        await work.drop_lease(lease)
        await work.claim_lease("sweep", "thief", 60_000)
    assert await running == [JobReport("sweep", "failed", ConflictError.code)]
    assert ended == ["cancelled"]
    async with store.transaction() as work:
        assert await work.claim_lease("sweep", "one", 1) is None  # the thief's lease was not dropped


async def test_a_lease_is_renewed_while_its_job_runs(store: KeyStore, clock: FakeClock) -> None:
    jobs = JobRunner(store, lambda: "one", SystemClock(), lease_ttl_s=TTL_S)
    renewed: list[int] = []

    async def long(lease: Lease) -> None:
        for _ in range(3):
            clock.advance(TTL_S * 0.6)
            await asyncio.sleep(TTL_S * 0.6)
            async with store.transaction() as work:
                await work.check_lease(lease)
                renewed.append((await work.claim_lease("sweep", "one", int(TTL_S * 1000)) or lease).token)

    jobs.add(Job("sweep", 60, long))
    assert await jobs.run_due() == [JobReport("sweep", "done")]
    assert len(set(renewed)) == 1


async def test_a_job_ends_when_the_store_is_away_for_longer_than_its_lease(store: KeyStore) -> None:
    counted = CountingStore(store)
    jobs = JobRunner(counted, lambda: "one", SystemClock(), lease_ttl_s=TTL_S)

    async def long(lease: Lease) -> None:
        counted.failure = StoreUnavailableError("away")
        await asyncio.sleep(60)

    jobs.add(Job("sweep", 60, long))
    assert await jobs.run_due() == [JobReport("sweep", "failed", ConflictError.code)]


async def test_a_job_outlasts_a_store_that_is_away_for_a_moment(store: KeyStore) -> None:
    counted = CountingStore(store)
    jobs = JobRunner(counted, lambda: "one", SystemClock(), lease_ttl_s=TTL_S)

    async def long(lease: Lease) -> None:
        counted.failure = StoreUnavailableError("away")
        await asyncio.sleep(TTL_S / 2)
        counted.failure = None
        await asyncio.sleep(TTL_S)

    jobs.add(Job("sweep", 60, long))
    assert await jobs.run_due() == [JobReport("sweep", "done")]


async def test_a_store_that_is_away_when_a_job_is_due_is_a_failed_job(store: KeyStore, clock: FakeClock) -> None:
    counted = CountingStore(store)
    counted.failure = StoreUnavailableError("away")
    jobs = runner(counted, clock)
    jobs.add(Job("sweep", 60, counting([])))
    assert await jobs.run_due() == [JobReport("sweep", "failed", "store_unavailable")]


async def test_a_runner_that_is_cancelled_stops_its_job_and_stays_cancelled(store: KeyStore, clock: FakeClock) -> None:
    """Also while the store is away, so that the lease cannot be given back: whoever closes must not wait for ever."""
    for failure in (None, StoreUnavailableError("away")):
        counted = CountingStore(store)
        jobs = runner(counted, clock)
        started, ended = asyncio.Event(), asyncio.Event()

        async def long(lease: Lease, started: asyncio.Event = started, ended: asyncio.Event = ended) -> None:
            started.set()
            try:
                await asyncio.sleep(60)
            finally:
                ended.set()

        jobs.add(Job("sweep", 60, long))
        running = asyncio.create_task(jobs.run_due())
        await started.wait()
        counted.failure = failure
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asyncio.wait_for(running, 5)
        assert ended.is_set()


async def test_a_job_that_cancels_itself_ends_nobody_else(store: KeyStore, clock: FakeClock) -> None:
    async def odd(lease: Lease) -> None:
        raise asyncio.CancelledError

    jobs = runner(store, clock)
    jobs.add(Job("odd", 60, odd))
    jobs.add(Job("good", 60, counting([])))
    assert [report.outcome for report in await jobs.run_due()] == ["failed", "done"]


async def test_a_guarded_write_of_a_former_owner_is_refused(store: KeyStore, clock: FakeClock) -> None:
    async def slow(lease: Lease) -> None:
        clock.advance(31)
        async with store.transaction() as work:
            assert await work.claim_lease("sweep", "two", 30_000) is not None
        async with store.transaction() as work:
            await work.check_lease(lease)

    jobs = runner(store, clock)
    jobs.add(Job("sweep", 60, slow))
    assert await jobs.run_due() == [JobReport("sweep", "failed", ConflictError.code)]


async def test_a_renewal_is_waited_for_no_longer_than_the_lease_holds(
    store: KeyStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    timeout, limits, is_enough = asyncio.timeout, list[float](), asyncio.Event()

    def noted(delay: float | None) -> asyncio.Timeout:
        # A store on the same machine sets its own statements no limit.
        limits.extend([] if delay is None else [delay])
        if len(limits) == 2:
            is_enough.set()
        return timeout(delay)

    async def works(lease: Lease) -> None:
        await is_enough.wait()

    monkeypatch.setattr(asyncio, "timeout", noted)
    await JobRunner(store, lambda: "one", SystemClock(), lease_ttl_s=TTL_S).run_alone(Job("job", 0, works))
    # A third of the lease was over when it was asked for.
    assert max(limits) <= 0.7 * TTL_S


async def test_a_job_that_runs_already_is_not_begun_once_more_in_its_process(store: KeyStore, clock: FakeClock) -> None:
    has_begun, may_end = asyncio.Event(), asyncio.Event()
    ran: list[Lease] = []

    async def slow(lease: Lease) -> None:
        ran.append(lease)
        has_begun.set()
        await may_end.wait()

    jobs = runner(store, clock)
    jobs.add(Job("sweep", 60, slow), wait=True)
    first = asyncio.create_task(jobs.run_now("sweep"))
    await has_begun.wait()
    assert await jobs.run_now("sweep") == JobReport("sweep", "held")
    clock.advance(60)
    assert await jobs.run_due() == [JobReport("sweep", "held")]
    may_end.set()
    assert await first == JobReport("sweep", "done")
    assert (await jobs.run_now("sweep")).outcome == "done"
    assert len(ran) == 2


async def test_how_a_job_ended_last_is_told_on_every_node(store: KeyStore, clock: FakeClock) -> None:
    is_good = False

    async def sweeps(lease: Lease) -> None:
        if not is_good:
            raise KeyRotationError("no")

    here, there = runner(store, clock, "here"), runner(store, clock, "there")
    for jobs in (here, there):
        jobs.add(Job("sweep", 60, sweeps))
    assert [each.last for each in await there.standings()] == [None]
    await here.run_now("sweep")
    failed = JobRun("sweep", "here", KeyRotationError.code, clock.now(), 0)
    clock.advance(5)
    for jobs in (here, there, runner(store, clock, "started later")):
        if jobs not in (here, there):
            jobs.add(Job("sweep", 60, sweeps))
        assert [each.last for each in await jobs.standings()] == [failed]
    is_good = True
    await there.run_now("sweep")
    assert [each.last for each in await here.standings()] == [JobRun("sweep", "there", None, clock.now(), 0)]


async def test_what_was_left_to_another_process_is_no_run(store: KeyStore, clock: FakeClock) -> None:
    async with store.transaction() as work:
        await work.claim_lease("sweep", "somebody", 60_000)
    jobs = runner(store, clock)
    jobs.add(Job("sweep", 60, counting([])))
    assert (await jobs.run_now("sweep")).outcome == "held"
    assert [each.last for each in await jobs.standings()] == [None]
