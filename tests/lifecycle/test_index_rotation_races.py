"""Rotations of index keys that meet one another, or that die midway."""

from __future__ import annotations

import asyncio

import pytest

from keystead.errors import StoreUnavailableError
from keystead.fields import Exact, Field
from keystead.model import DataKeyState
from keystead.ports import AuditEvent, UnitOfWork
from tests.fakes.world import World, polled, session_of
from tests.lifecycle.index_keys import EMAIL, PHONE, SOURCE, live, prepare, versions

ACTIVE, PRE_ACTIVE, DISABLED = DataKeyState.ACTIVE, DataKeyState.PRE_ACTIVE, DataKeyState.DISABLED


async def test_of_many_that_begin_at_once_one_adds_the_version(url: str) -> None:
    world = World()
    managers = [world.manager(store=url) for _ in range(4)]
    for km in managers:
        await km.initialize()
    try:
        await prepare(managers[0])
        infos = await asyncio.gather(*(km.rotate_index_key() for km in managers for _ in range(3)))
        assert {info.version for info in infos} == {2}
    finally:
        for km in managers:
            await km.close()


async def test_of_many_that_finish_at_once_one_does(url: str) -> None:
    world = World()
    managers = [world.manager(store=url) for _ in range(4)]
    for km in managers:
        await km.initialize()
    try:
        rotation = await prepare(managers[0])
        rotations = [(await session_of(km)).lifecycle.index_rotation for km in managers]
        for version in (2, 3):
            await managers[0].rotate_index_key()
            await rotation.note_indexed(EMAIL.id, version)
            ends = await asyncio.gather(*(one.finish("index") for one in rotations for _ in range(3)))
            assert [row.version for row in ends if row is not None] == [version]
        await polled(*managers)
        assert live(managers[0]) == (3,)
    finally:
        for km in managers:
            await km.close()


async def test_registering_waits_for_a_rotation_that_is_ending(url: str) -> None:
    world = World()
    async with world.open(store=url) as one, world.open(store=url) as two:
        await prepare(one)
        await two.load_fields(PHONE)
        async with (await session_of(one)).surroundings.store.transaction() as work:
            await work.find_keyring("index", lock=True)
            registering = asyncio.create_task(two.register_field(PHONE, SOURCE))
            await asyncio.wait({registering}, timeout=0.3)
            assert not registering.done()
        await registering


async def test_finishing_and_registering_at_once_never_leaves_a_field_out(url: str) -> None:
    """Either the rotation has ended before the field was registered, or it waits for it."""
    world = World()
    async with world.open(store=url) as one, world.open(store=url) as two:
        rotation = await prepare(one)
        for version in (2, 3, 4):
            await one.rotate_index_key()
            await rotation.note_indexed(EMAIL.id, version)
            late = Field("late", f"column{version}", indexes=(Exact(),))
            ended, _ = await asyncio.gather(rotation.finish("index"), two.register_field(late, SOURCE))
            if ended is None:
                assert await rotation.finish("index") is None
                await rotation.note_indexed(late.id, version)
                assert await rotation.finish("index") is not None
            await one.forget_field(late.id)


class Breaks:
    """An audit trail that fails when it is told of an action, as a process that dies there."""

    def __init__(self, action: str) -> None:
        self.action: str | None = action

    async def record(self, work: UnitOfWork, event: AuditEvent) -> None:
        if event.action == self.action:
            raise StoreUnavailableError("the process died here")


@pytest.mark.parametrize("action", ["key.disable", "key.promote"])
async def test_a_finish_that_dies_midway_changes_nothing_and_is_done_later(world: World, action: str) -> None:
    audit = Breaks(action)
    async with world.open(audit=audit) as km:
        rotation = await prepare(km)
        await km.rotate_index_key()
        await rotation.note_indexed(EMAIL.id, 2)
        with pytest.raises(StoreUnavailableError):
            await rotation.finish("index")
        assert await versions(world) == {1: ACTIVE, 2: PRE_ACTIVE}
    async with world.open() as km:
        ended = await (await session_of(km)).lifecycle.index_rotation.finish("index")
        assert ended is not None
    assert await versions(world) == {1: DISABLED, 2: ACTIVE}


async def test_a_begin_that_dies_midway_adds_nothing_and_is_done_later(world: World) -> None:
    async with world.open(audit=Breaks("key.rotate")) as km:
        await prepare(km)
        with pytest.raises(StoreUnavailableError):
            await km.rotate_index_key()
    assert await versions(world) == {1: ACTIVE}
    async with world.open() as km:
        assert (await km.rotate_index_key()).version == 2


async def test_a_begin_that_lost_its_race_finds_the_winners_version(world: World) -> None:
    async with world.open() as one, world.open() as two:
        await prepare(one)
        other = (await session_of(two)).lifecycle.index_rotation
        live_rings = (await session_of(one)).live
        sealing_ring = live_rings.sealing_ring

        async def overtaken(name: str) -> object:
            await other.begin("index")
            return await sealing_ring(name)

        live_rings.sealing_ring = overtaken  # type: ignore[method-assign, assignment]
        assert (await one.rotate_index_key()).version == 2
    assert await versions(world) == {1: ACTIVE, 2: PRE_ACTIVE}


async def test_a_version_taken_meanwhile_is_tried_again(world: World) -> None:
    async with world.open() as km:
        await prepare(km)
        session = await session_of(km)
        sealing_ring = session.live.sealing_ring
        taken: list[int] = []

        async def taking(name: str) -> object:
            if not taken:
                async with world.store.transaction() as work:
                    taken.append(await work.take_version("index"))
            return await sealing_ring(name)

        session.live.sealing_ring = taking  # type: ignore[method-assign, assignment]
        assert (await km.rotate_index_key()).version == 4
