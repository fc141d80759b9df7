"""A worker waits where the table is; whoever does not reach it asks for a plan or a re-encryption."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from keystead import fields
from keystead.errors import ConflictError, InvalidInputError, KeyNotFoundError, StoreUnavailableError
from keystead.fields import plan, serve_wishes, wish, wishes
from keystead.fields.plan_text import MOST_VERSIONS, KeptPlan, parse_plan, plan_text
from keystead.fields.planning import ReencryptPlan, VersionRows
from keystead.fields.waiting import HELD_MS, NOTE_S, SETTLED_MS
from keystead.fields.wishes import KEPT, FieldStanding, field_standing
from keystead.manager.manager import KeyManager
from keystead.manager.wish_removal import WishRemoval
from keystead.ports import Listeners, ReencryptionState, WishKind, WishRecord, WishState
from tests.fakes.clock import FakeClock
from tests.fakes.world import CountingStore, World
from tests.fields.application import EMAIL, Application
from tests.fields.test_reencrypt import key_ids


async def ready(km: KeyManager, app: Application, count: int = 40) -> int:
    """Make people under a version that is not the active one any more, register their field, return the active one."""
    app.make_people(km, count)
    await km.load_fields(EMAIL)
    await km.register_field(EMAIL, app.url)
    return (await km.rotate_data_key(promote="now")).id


async def standing(km: KeyManager) -> FieldStanding:
    return await field_standing(km, EMAIL.id)


async def test_a_wish_for_a_run_re_encrypts_the_table(world: World, app: Application) -> None:
    async with world.open() as km, world.open() as asking:
        active = await ready(km, app)
        asked = await wish(asking, EMAIL.id, "run", asked_by="ada")
        told: list[WishRecord] = []
        assert await serve_wishes(km, app.url, EMAIL, once=True, on_wish=told.append) == 1
        assert key_ids(app) == {active}
        (ended,) = await wishes(asking, EMAIL.id)
        (job,) = await fields.reencryptions(asking, EMAIL.id)
        assert (ended.id, ended.state, ended.job_id, ended.asked_by) == (asked.id, WishState.DONE, job.id, "ada")
        assert [each.state for each in told] == [WishState.TAKEN, WishState.DONE]
        assert await serve_wishes(km, app.url, EMAIL, once=True) == 0


async def test_a_wish_for_a_plan_tells_what_plan_finds_and_writes_nothing(world: World, app: Application) -> None:
    async with world.open() as km:
        await ready(km, app)
        app.run("UPDATE people SET email = NULL WHERE id = 7")
        before = app.rows("SELECT * FROM people ORDER BY id")
        await wish(km, EMAIL.id, WishKind.PLAN)
        await serve_wishes(km, app.url, EMAIL, once=True)
        found = (await standing(km)).planned
        assert found is not None
        expected = await plan(km, app.url, EMAIL)
        assert replace(found.kept.plan, seconds=0.0) == replace(expected, seconds=0.0)
        assert (expected.rows, expected.empty, expected.sample_changes) == (40, 1, 39)
        assert found.kept.plan.seconds > 0
        assert app.rows("SELECT * FROM people ORDER BY id") == before
        assert await fields.reencryptions(km) == []


async def test_of_two_workers_exactly_one_does_a_wish(world: World, app: Application) -> None:
    async with world.open() as km, world.open() as other:
        await ready(km, app)
        await wish(km, EMAIL.id, "plan")
        done = await asyncio.gather(*[serve_wishes(each, app.url, EMAIL, once=True) for each in (km, other)])
        assert sorted(done) == [0, 1]


async def test_a_wish_of_a_worker_that_died_is_taken_again_after_a_while(
    world: World, app: Application, clock: FakeClock
) -> None:
    async with world.open() as km:
        active = await ready(km, app)
        asked = await wish(km, EMAIL.id, "run")
        async with world.store.transaction() as work:
            assert await work.take_wish(asked.id, "a worker that died", HELD_MS) is not None
        assert await serve_wishes(km, app.url, EMAIL, once=True) == 0
        with pytest.raises(ConflictError, match="a worker is at it"):
            await fields.cancel_wish(km, asked.id)
        clock.advance(timedelta(milliseconds=HELD_MS))
        assert await serve_wishes(km, app.url, EMAIL, once=True) == 1
        assert key_ids(app) == {active}


async def test_a_cancelled_wish_is_not_done(world: World, app: Application) -> None:
    async with world.open() as km:
        await ready(km, app)
        before = key_ids(app)
        asked = await wish(km, EMAIL.id, "run")
        assert (await fields.cancel_wish(km, asked.id)).state is WishState.CANCELLED
        assert await serve_wishes(km, app.url, EMAIL, once=True) == 0
        assert key_ids(app) == before
        with pytest.raises(ConflictError, match="cancelled already"):
            await fields.cancel_wish(km, asked.id)


async def test_what_cannot_be_asked_for_is_refused(world: World, app: Application) -> None:
    async with world.open() as km:
        await ready(km, app)
        with pytest.raises(KeyNotFoundError, match="keystead field list"):
            await wish(km, "people.<script>", "run")
        with pytest.raises(InvalidInputError, match="plan, or a run"):
            await wish(km, EMAIL.id, "drop")
        with pytest.raises(KeyNotFoundError):
            await fields.cancel_wish(km, "none")
        await wish(km, EMAIL.id, "plan")
        with pytest.raises(ConflictError, match="was asked for already"):
            await wish(km, EMAIL.id, "run")
        with pytest.raises(InvalidInputError):
            await serve_wishes(km, app.url, EMAIL, poll_s=0)
        with pytest.raises(InvalidInputError):
            await serve_wishes(km, app.url, replace(EMAIL, column="none"), once=True)


async def test_what_fails_is_told_by_its_code_alone(world: World, app: Application) -> None:
    async with world.open() as km:
        await ready(km, app)
        asked = await wish(km, EMAIL.id, "run")

        def gone(taken: WishRecord) -> None:
            if taken.state is WishState.TAKEN:
                app.run("DROP TABLE people")

        assert await serve_wishes(km, app.url, EMAIL, once=True, on_wish=gone) == 1
        (ended,) = await wishes(km, EMAIL.id)
        assert (ended.id, ended.state) == (asked.id, WishState.FAILED)
        assert ended.error_code is not None
        assert ended.error_code.replace("_", "").isalpha()


async def test_who_waits_is_seen_and_writes_seldom(world: World, sqlite_app: Application, clock: FakeClock) -> None:
    polls = 40
    async with world.open() as km, world.open() as worker:
        await ready(km, sqlite_app)
        assert (await standing(km)).listeners is None
        seen: list[Listeners | None] = []

        async def sleep(seconds: float) -> None:
            seen.append((await standing(km)).listeners)
            clock.advance(seconds)
            if len(seen) == polls:
                raise asyncio.CancelledError

        with pytest.raises(asyncio.CancelledError):
            await serve_wishes(worker, sqlite_app.url, EMAIL, poll_s=5, sleep=sleep)
        assert all(each is not None and each.waiting == 1 for each in seen)
        assert len({each.seen_ms for each in seen if each is not None}) <= 1 + polls * 5 / NOTE_S
        after = await standing(km)
        assert not after.is_listened_to
        assert after.listeners is not None
        assert after.command is not None


async def test_a_worker_that_is_not_heard_of_any_more_does_not_wait(
    world: World, sqlite_app: Application, clock: FakeClock
) -> None:
    async with world.open() as km:
        await ready(km, sqlite_app)
        async with world.store.transaction() as work:
            await work.listen(EMAIL.id, "a worker that died", 90_000)
        assert (await standing(km)).is_listened_to
        clock.advance(91)
        assert not (await standing(km)).is_listened_to


async def test_a_store_that_is_away_is_asked_again(world: World, sqlite_app: Application) -> None:
    counting = CountingStore(world.store)
    async with world.open() as km, world.open(store=counting) as worker:
        active = await ready(km, sqlite_app)

        async def sleep(seconds: float) -> None:
            if counting.failure is None:
                await wish(km, EMAIL.id, "run")
                counting.failure = StoreUnavailableError("away")
            elif (await wishes(km, EMAIL.id))[0].state is WishState.OPEN:
                counting.failure = None
                sleeping.append(seconds)
            if len(sleeping) > 1 or (await wishes(km, EMAIL.id))[0].state is WishState.DONE:
                raise asyncio.CancelledError

        sleeping: list[float] = []
        with pytest.raises(asyncio.CancelledError):
            await serve_wishes(worker, sqlite_app.url, EMAIL, sleep=sleep)
        assert key_ids(sqlite_app) == {active}


async def test_a_run_that_is_stopped_is_gone_on_with_by_the_next_worker(world: World, app: Application) -> None:
    async with world.open() as km:
        active = await ready(km, app, 200)
        await wish(km, EMAIL.id, "run")
        task: asyncio.Task[int]

        def stop(progress: Any) -> None:
            task.cancel()

        task = asyncio.create_task(serve_wishes(km, app.url, EMAIL, once=True, batch_rows=5, on_progress=stop))
        with pytest.raises(asyncio.CancelledError):
            await task
        assert len(key_ids(app)) == 2, "it ended after the batch at hand"
        (stopped,) = await wishes(km, EMAIL.id)
        (job,) = await fields.reencryptions(km)
        assert (stopped.state, stopped.job_id, job.state) == (WishState.TAKEN, job.id, ReencryptionState.RUNNING)
        assert await serve_wishes(km, app.url, EMAIL, once=True) == 1
        assert key_ids(app) == {active}
        assert [each.id for each in await fields.reencryptions(km)] == [job.id]


@pytest.mark.parametrize("state", [ReencryptionState.RUNNING, ReencryptionState.PAUSED])
async def test_a_running_job_that_nobody_works_on_is_gone_on_with_and_a_paused_one_is_not(
    world: World, app: Application, clock: FakeClock, state: ReencryptionState
) -> None:
    async with world.open() as km:
        active = await ready(km, app, 60)
        task: asyncio.Task[Any]

        def stop(progress: Any) -> None:
            task.cancel()

        task = asyncio.create_task(fields.reencrypt(km, app.url, EMAIL, batch_rows=5, on_progress=stop))
        with pytest.raises(asyncio.CancelledError):
            await task
        (job,) = await fields.reencryptions(km)
        if state is ReencryptionState.PAUSED:
            await fields.pause(km, job.id)
        clock.advance(timedelta(milliseconds=SETTLED_MS))
        await serve_wishes(km, app.url, replace(EMAIL, encrypt_null=True), once=True)
        assert key_ids(app) != {active}, "a worker with another declaration leaves it alone"
        await serve_wishes(km, app.url, EMAIL, once=True)
        assert (key_ids(app) == {active}) is (state is ReencryptionState.RUNNING)


async def test_wishes_are_few_and_go_after_30_days(world: World, sqlite_app: Application, clock: FakeClock) -> None:
    async with world.open() as km:
        await ready(km, sqlite_app)
        for _ in range(KEPT + 3):
            await fields.cancel_wish(km, (await wish(km, EMAIL.id, "plan", asked_by="a" * 1000)).id)
            clock.advance(1)
        async with world.store.transaction() as work:
            await work.listen(EMAIL.id, "worker", 1000)
        assert len(await wishes(km, EMAIL.id)) == KEPT
        clock.advance(timedelta(days=31))
        await wish(km, EMAIL.id, "plan")
        assert await WishRemoval(world.store).upkeep() == KEPT
        assert len(await wishes(km, EMAIL.id)) == 1
        assert (await standing(km)).listeners is None


def test_a_plan_of_many_versions_is_kept_in_a_bounded_text() -> None:
    many = [VersionRows(n, f"people-{n}", 1, n) for n in range(1, MOST_VERSIONS + 11)]
    found = ReencryptPlan(sum(each.rows for each in many), many, 0, 0, 0, 10, 10, 1.5, None)
    kept = parse_plan(plan_text(found))
    assert kept is not None
    assert (len(kept.plan.versions), kept.other_versions, kept.other_rows) == (MOST_VERSIONS, 10, 55)
    assert sum(each.rows for each in kept.plan.versions) + kept.other_rows == found.rows
    assert parse_plan(plan_text(replace(found, versions=[]))) == KeptPlan(replace(found, versions=[]))


@pytest.mark.parametrize(
    "text", [None, "", "{", "[]", "{}", "[" * 100_000, '{"rows":-1}', '{"versions":[{"rows":1}]}', '{"versions":7}']
)
def test_what_is_no_plan_is_read_as_none(text: str | None) -> None:
    assert parse_plan(text) is None
