"""Index keys: two versions live from the beginning of a rotation until every registered field is filled."""

from __future__ import annotations

from dataclasses import replace

import pytest

from keystead.errors import (
    KeyNotFoundError,
    KeyStateError,
    StaleViewError,
    StoreRestoredError,
)
from keystead.fields import Field
from keystead.lifecycle.index_rotation import HASH_KEYRING
from keystead.lifecycle.restoration import export_store, import_store, recover_store
from keystead.model import DataKeyState, KeyringPurpose
from keystead.ports import FieldRecord
from keystead.stores.memory import MemoryKeyStore
from tests.fakes.clock import FakeClock
from tests.fakes.world import World, copied, polled, put_back, session_of
from tests.lifecycle.index_keys import EMAIL, PHONE, SOURCE, live, prepare, versions

ACTIVE, PRE_ACTIVE, DISABLED = DataKeyState.ACTIVE, DataKeyState.PRE_ACTIVE, DataKeyState.DISABLED


async def test_a_new_version_is_live_beside_the_old_one_until_every_field_is_filled(world: World) -> None:
    async with world.open() as km:
        rotation = await prepare(km, EMAIL, PHONE)
        info = await km.rotate_index_key()
        assert (info.version, info.state) == (2, PRE_ACTIVE)
        assert live(km) == (1, 2)
        assert all(km.field(EMAIL).index_values("a").values())
        await rotation.note_indexed(EMAIL.id, 2)
        assert await rotation.finish("index") is None
        await rotation.note_indexed(PHONE.id, 2)
        finished = await rotation.finish("index")
        assert finished is not None
        assert (finished.version, finished.state) == (2, ACTIVE)
        assert live(km) == (2,)
    assert await versions(world) == {1: DISABLED, 2: ACTIVE}


async def test_finishing_again_changes_nothing(world: World) -> None:
    async with world.open() as km:
        rotation = await prepare(km)
        await km.rotate_index_key()
        await rotation.note_indexed(EMAIL.id, 2)
        assert await rotation.finish("index") is not None
        before = await world.rows("index")
        assert await rotation.finish("index") is None
        assert await world.rows("index") == before


async def test_a_second_rotation_before_the_first_has_finished_adds_no_version(world: World) -> None:
    async with world.open() as one, world.open() as two:
        await prepare(one)
        first = await one.rotate_index_key()
        assert (await one.rotate_index_key()).id == first.id
        assert (await two.rotate_index_key()).id == first.id
    assert await versions(world) == {1: ACTIVE, 2: PRE_ACTIVE}


async def test_one_rotation_follows_another_with_the_parities_in_turn(world: World) -> None:
    async with world.open() as km:
        rotation = await prepare(km)
        for version in (2, 3, 4):
            assert (await km.rotate_index_key()).version == version
            await rotation.note_indexed(EMAIL.id, version)
            await rotation.finish("index")
    assert await versions(world) == {1: DISABLED, 2: DISABLED, 3: DISABLED, 4: ACTIVE}


async def test_an_abandoned_rotation_leaves_the_old_version_alone(world: World) -> None:
    async with world.open() as km:
        rotation = await prepare(km)
        await km.rotate_index_key()
        given_up = await rotation.abandon("index")
        assert given_up is not None
        assert (given_up.version, given_up.state) == (2, DISABLED)
        assert live(km) == (1,)
        assert await rotation.abandon("index") is None


async def test_the_version_after_an_abandoned_one_has_the_other_columns_of_the_active_one(world: World) -> None:
    async with world.open() as km:
        rotation = await prepare(km)
        await km.rotate_index_key()
        await rotation.abandon("index")
        assert (await km.rotate_index_key()).version == 4
        assert all(km.field(EMAIL).index_values("a").values())


async def test_without_a_registered_field_nothing_is_begun(world: World) -> None:
    async with world.open() as km:
        await km.load_fields(EMAIL)
        await km.register_field(Field("people", "note"), SOURCE)
        with pytest.raises(KeyStateError, match="register_field"):
            await km.rotate_index_key()


async def test_what_is_forgotten_midway_is_not_taken_for_filled(world: World) -> None:
    async with world.open() as km:
        rotation = await prepare(km)
        await km.rotate_index_key()
        await km.forget_field(EMAIL.id)
        assert await rotation.finish("index") is None


async def test_a_field_registered_midway_is_waited_for(world: World) -> None:
    async with world.open() as km:
        rotation = await prepare(km)
        await km.rotate_index_key()
        await rotation.note_indexed(EMAIL.id, 2)
        await prepare(km, PHONE)
        assert await rotation.finish("index") is None


async def test_only_a_registered_field_is_noted(world: World) -> None:
    async with world.open() as km:
        rotation = await prepare(km)
        with pytest.raises(KeyNotFoundError, match="register_field"):
            await rotation.note_indexed(PHONE.id, 2)


@pytest.mark.parametrize(
    ("name", "error"), [(HASH_KEYRING, KeyStateError), ("default", KeyStateError), ("absent", KeyNotFoundError)]
)
async def test_other_keyrings_are_refused(world: World, name: str, error: type[Exception]) -> None:
    async with world.open() as km:
        rotation = await prepare(km)
        for attempt in (km.rotate_index_key, rotation.finish, rotation.abandon, rotation.is_ready):
            with pytest.raises(error, match=name):
                await attempt(name)


async def test_a_version_that_is_neither_active_nor_waiting_is_in_the_way(world: World) -> None:
    async with world.open() as km:
        await prepare(km)
        [row] = await world.rows("index")
        async with world.store.transaction() as work:
            spare = replace(row, id=7, version=await work.take_version("index"), published_epoch=0)
            await work.add_key(replace(spare, state=DataKeyState.DECRYPT_ONLY))
        with pytest.raises(KeyStateError, match=r"version 2 .* decrypt-only"):
            await km.rotate_index_key()


async def test_whatever_else_is_live_ends_with_the_old_version(world: World) -> None:
    async with world.open() as km:
        rotation = await prepare(km)
        for version in (2, 3):
            await rotation.begin("index")
            await rotation.note_indexed(EMAIL.id, version)
            if version == 3:
                first = (await world.rows("index"))[0]
                async with world.store.transaction() as work:
                    epoch = await work.bump_epoch()
                    await work.change_key(first.id, first.state, state=DataKeyState.DECRYPT_ONLY, published_epoch=epoch)
            await rotation.finish("index")
        assert set((await versions(world)).values()) == {DataKeyState.DISABLED, DataKeyState.ACTIVE}


async def test_an_index_keyring_without_an_active_version_is_refused(world: World) -> None:
    async with world.open() as km:
        session = await session_of(km)
        async with world.store.transaction() as work:
            record = session.surroundings.new_keyring("bare", KeyringPurpose.INDEX, "HMAC-SHA256")
            await work.add_keyring(record)
        with pytest.raises(KeyStateError, match="no active version"):
            await km.rotate_index_key("bare")


async def test_the_rotation_of_data_keys_leaves_index_keys_alone(world: World) -> None:
    async with world.open() as km:
        await prepare(km)
        rotation = (await session_of(km)).lifecycle.rotation
        for attempt in (rotation.rotate, rotation.promote):
            with pytest.raises(KeyStateError, match="rotate_index_key"):
                await attempt("index")
        await km.rotate_index_key()
        with pytest.raises(KeyStateError, match="rotate-index"):
            await rotation.promote("index", force=True)
    assert await versions(world) == {1: ACTIVE, 2: PRE_ACTIVE}


async def test_maintenance_never_rotates_or_promotes_index_keys(world: World, clock: FakeClock) -> None:
    async with world.open(grace_s=None) as km:
        await prepare(km)
        await km.rotate_index_key()
        clock.advance(400 * 86_400)
        report = await km.perform_maintenance()
        assert (report.rotated, report.promoted, report.failures) == (1, 0, {})
    assert await versions(world) == {1: ACTIVE, 2: PRE_ACTIVE}


async def test_an_index_key_that_was_replaced_is_not_enabled_again(world: World) -> None:
    async with world.open() as km:
        rotation = await prepare(km)
        await km.rotate_index_key()
        await rotation.note_indexed(EMAIL.id, 2)
        await rotation.finish("index")
        old, _ = await world.rows("index")
        with pytest.raises(KeyStateError, match="no longer hashed"):
            await (await session_of(km)).lifecycle.destruction.enable(old.id)


async def test_rows_are_filled_once_every_node_has_loaded_the_new_version(world: World) -> None:
    async with world.open() as one, world.open() as two:
        rotation = await prepare(one)
        await two.load_fields(EMAIL)
        assert not await rotation.is_ready("index")
        await one.rotate_index_key()
        assert live(two) == (1,)
        assert not await rotation.is_ready("index")
        await polled(two)
        assert live(two) == (1, 2)
        assert await rotation.is_ready("index")


async def test_a_node_that_is_gone_is_not_waited_for_and_writes_no_more(world: World, clock: FakeClock) -> None:
    async with world.open() as one, world.open() as two:
        rotation = await prepare(one)
        await two.load_fields(EMAIL)
        await one.rotate_index_key()
        clock.advance(61)
        assert await rotation.is_ready("index")
        with pytest.raises(StaleViewError):
            two.field(EMAIL).index_values("a")
        await polled(two)
        assert all(two.field(EMAIL).index_values("a").values())


async def test_the_node_that_asks_is_up_to_date_whatever_it_last_told(world: World) -> None:
    async with world.open() as one, world.open() as two:
        await prepare(one)
        rotation = await prepare(two)
        await one.rotate_index_key()
        assert not await rotation.is_ready("index")
        await polled(one)
        assert await rotation.is_ready("index")
        assert live(two) == (1, 2)


async def test_a_process_that_becomes_a_node_is_waited_for_before_it_may_write(world: World) -> None:
    """It beats first and reads then: the other way round, a version could be added and filled in between."""
    async with world.open() as one, world.open() as two:
        rotation = await prepare(one)
        await (await session_of(two)).live.load("index")
        session = await session_of(two)
        refresh = session.live.refresh
        seen: list[bool] = []

        async def refresh_late() -> bool:
            await one.rotate_index_key()
            seen.append(await rotation.is_ready("index"))
            with pytest.raises(StaleViewError):
                session.require_current_view()
            return await refresh()

        session.live.refresh = refresh_late  # type: ignore[method-assign]
        await session.become_node()
        assert seen == [False]
        session.require_current_view()
        assert await rotation.is_ready("index")


async def test_a_heartbeat_that_lapsed_while_it_was_renewed_does_not_count(world: World, clock: FakeClock) -> None:
    async with world.open() as km:
        await prepare(km)
        session = await session_of(km)
        refresh = session.live.refresh

        async def refresh_slowly() -> bool:
            clock.advance(3600)
            return await refresh()

        session.live.refresh = refresh_slowly  # type: ignore[method-assign]
        await session.poll()
        assert not session.has_current_view
        session.live.refresh = refresh  # type: ignore[method-assign]
        await session.poll()
        assert session.has_current_view


async def test_a_restored_store_rotates_no_index_key(world: World) -> None:
    assert isinstance(world.store, MemoryKeyStore)
    async with world.open() as km:
        rotation = await prepare(km)
        backup = copied(world.store)
        await km.rotate_index_key()
        put_back(world.store, backup)
        await polled(km)
        for attempt in (km.rotate_index_key, rotation.finish, rotation.abandon):
            with pytest.raises(StoreRestoredError):
                await attempt("index")


async def test_fields_travel_with_an_export_and_are_filled_again_after_its_recovery(
    world: World, clock: FakeClock
) -> None:
    async with world.open() as km:
        rotation = await prepare(km)
        await km.rotate_index_key()
        await rotation.note_indexed(EMAIL.id, 2)
        export = await export_store((await session_of(km)).live)
    world.store = MemoryKeyStore(clock=clock)
    await import_store(world.store, export)
    expected = FieldRecord(EMAIL.id, "default", "index", SOURCE, 2)
    async with world.open() as km:
        assert await km.fields() == [expected]
        session = await session_of(km)
        await recover_store(session.live, session.lifecycle.rotation, session.lifecycle.destruction)
        assert await km.fields() == [replace(expected, indexed_version=None)]
        assert await session.lifecycle.index_rotation.finish("index") is None
