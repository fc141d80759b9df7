"""A destruction whose reason is over when it is carried out, or that another machine's clock would have early."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import timedelta

import pytest

from keystead.errors import KeyStateError
from keystead.lifecycle.destruction import Destruction
from keystead.manager.manager import KeyManager
from keystead.model import DataKeyState, KeyRecord
from keystead.ports import KeyUse
from tests.fakes.clock import FakeClock
from tests.fakes.world import World, session_of

DAY = timedelta(days=1)
S = DataKeyState


async def destruction_of(km: KeyManager) -> Destruction:
    return (await session_of(km)).lifecycle.destruction


async def replaced(km: KeyManager, world: World) -> KeyRecord:
    """Rotate, and return the version that was replaced."""
    await km.rotate_data_key(promote="now")
    return (await world.rows("default"))[0]


@pytest.mark.parametrize("skew", [-60 * DAY, 60 * DAY])
async def test_a_machine_whose_clock_is_wrong_destroys_nothing_before_the_store_says_that_it_is_time(
    world: World, clock: FakeClock, skew: timedelta
) -> None:
    wrong = FakeClock(clock.now() + skew)
    async with world.open() as km, world.open(clock=wrong) as other:
        key = await replaced(km, world)
        by_wrong = await (await destruction_of(other)).schedule(key.id, wait=7 * DAY, without_sources=True)
        assert by_wrong.destroy_after == clock.now() + 7 * DAY
        assert await (await destruction_of(other)).run_due() == []
        clock.advance(7 * DAY)
        assert len(await (await destruction_of(other)).run_due()) == 1


async def test_a_store_that_is_restored_while_its_sources_are_looked_through_destroys_nothing(
    world: World, clock: FakeClock
) -> None:
    restored = False

    async def looked_through(use: KeyUse, key_ids: Collection[int], /) -> Mapping[int, int]:
        async with world.store.transaction() as work:
            await work.set_restored(restored)
        return {}

    async with world.open(key_sources={"people": looked_through}) as km:
        async with world.store.transaction() as work:
            await work.declare_use(KeyUse("people", "default", "app:people"))
        await replaced(km, world)
        await (await destruction_of(km)).schedule((await world.rows("default"))[0].id)
        clock.advance(31 * DAY)
        restored = True
        with pytest.raises(KeyStateError, match="restored"):
            await (await destruction_of(km)).run_due()
        assert (await world.rows("default"))[0].state is S.PENDING_DESTROY


async def test_a_clock_that_is_set_back_after_a_key_was_found_due_keeps_the_key(world: World, clock: FakeClock) -> None:
    async def looked_through(use: KeyUse, key_ids: Collection[int], /) -> Mapping[int, int]:
        clock.set(begun)
        return {}

    begun = clock.now()
    async with world.open(key_sources={"people": looked_through}) as km:
        async with world.store.transaction() as work:
            await work.declare_use(KeyUse("people", "default", "app:people"))
        key = await replaced(km, world)
        await (await destruction_of(km)).schedule(key.id)
        clock.advance(31 * DAY)
        with pytest.raises(KeyStateError, match="set back"):
            await (await destruction_of(km)).run_due()
        assert (await world.rows("default"))[0].state is S.PENDING_DESTROY


async def test_a_source_that_is_declared_while_the_others_are_looked_through_keeps_the_key(
    world: World, clock: FakeClock
) -> None:
    async def looked_through(use: KeyUse, key_ids: Collection[int], /) -> Mapping[int, int]:
        async with world.store.transaction() as work:
            for declared in sources:
                await work.declare_use(declared)
        return {}

    sources: list[KeyUse] = []
    async with world.open(key_sources={"people": looked_through}) as km:
        async with world.store.transaction() as work:
            await work.declare_use(KeyUse("people", "default", "app:people"))
        key = await replaced(km, world)
        await (await destruction_of(km)).schedule(key.id)
        clock.advance(31 * DAY)
        sources.append(KeyUse("archive", "default", "app:people"))
        with pytest.raises(KeyStateError, match="declared meanwhile"):
            await (await destruction_of(km)).run_due()
        assert (await world.rows("default"))[0].state is S.PENDING_DESTROY
        assert len(await (await destruction_of(km)).run_due()) == 1


async def test_the_days_until_a_destruction_are_counted_from_when_its_sources_have_been_looked_through(
    world: World, clock: FakeClock
) -> None:
    async def looked_through(use: KeyUse, key_ids: Collection[int], /) -> Mapping[int, int]:
        clock.advance(DAY)
        return {}

    async with world.open(key_sources={"people": looked_through}) as km:
        async with world.store.transaction() as work:
            await work.declare_use(KeyUse("people", "default", "app:people"))
        key = await replaced(km, world)
        pending = await (await destruction_of(km)).schedule(key.id, wait=7 * DAY)
        assert pending.destroy_after == clock.now() + 7 * DAY
