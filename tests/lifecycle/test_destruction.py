from __future__ import annotations

import logging
from collections.abc import Collection, Mapping
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from keystead.errors import (
    CleanupFailedError,
    ConfigurationError,
    InvalidInputError,
    KeyInUseError,
    KeyNotFoundError,
    KeyStateError,
    StoreUnavailableError,
)
from keystead.lifecycle.destruction import Destruction
from keystead.lifecycle.states import TRANSITIONS, require_transition
from keystead.manager.manager import KeyManager
from keystead.model import WRAP_KEYRING, DataKeyState, KeyRecord
from keystead.ports import KeyUse
from tests.fakes.clock import FakeClock
from tests.fakes.world import World, polled, session_of

DAY = timedelta(days=1)
S = DataKeyState


class Application:
    """An application's own data source; ``hits`` is what it holds of each data key."""

    def __init__(self) -> None:
        self.hits: dict[int, int] = {}
        self.failure: Exception | None = None
        self.scans = 0

    async def __call__(self, use: KeyUse, key_ids: Collection[int], /) -> Mapping[int, int]:
        self.scans += 1
        if self.failure is not None:
            raise self.failure
        return {key_id: self.hits.get(key_id, 0) for key_id in key_ids}


@pytest.fixture
def application() -> Application:
    """An empty data source."""
    return Application()


async def declared(world: World, *names: str) -> None:
    async with world.store.transaction() as work:
        for name in names or ("people",):
            await work.declare_use(KeyUse(name, "default", "app:people"))


async def destruction_of(km: KeyManager) -> Destruction:
    return (await session_of(km)).lifecycle.destruction


async def rotated(km: KeyManager, world: World) -> KeyRecord:
    """Rotate, and return the version that was replaced."""
    await km.rotate_data_key(promote="now")
    return (await world.rows("default"))[0]


async def state(world: World, key: KeyRecord) -> DataKeyState:
    return next(row.state for row in await world.rows() if row.id == key.id)


async def test_an_unused_version_is_destroyed_after_its_wait_and_leaves_a_tombstone(
    world: World, clock: FakeClock, application: Application
) -> None:
    async with world.open(key_sources={"people": application}, grace_s=None) as km:
        sealed = km.local_encrypt(b"x")
        key = await rotated(km, world)
        await declared(world)
        destruction = await destruction_of(km)
        pending = await destruction.schedule(key.id, wait=7 * DAY)
        assert (pending.state, pending.destroy_after) == (S.PENDING_DESTROY, clock.now() + 7 * DAY)
        assert application.scans == 1
        with pytest.raises(KeyStateError, match="pending-destroy"):
            km.local_decrypt(sealed)
        clock.advance(7 * DAY - timedelta(seconds=1))
        assert await destruction.run_due() == []
        clock.advance(1)
        [tombstone] = await destruction.run_due()
        assert application.scans == 2
        assert (tombstone.id, tombstone.version, tombstone.state) == (key.id, 1, S.DESTROYED)
        assert tombstone.wrapped_key is None
        with pytest.raises(KeyStateError, match="gone for good"):
            km.local_decrypt(sealed)
        assert [row.version for row in await world.rows("default")] == [1, 2]
        assert (await km.rotate_data_key()).version == 3
    async with world.open() as km:
        with pytest.raises(KeyStateError, match="destroyed"):
            await km.decrypt_local(sealed)


@pytest.mark.parametrize("wait", [7 * DAY - timedelta(seconds=1), 30 * DAY + timedelta(seconds=1), timedelta(0), -DAY])
async def test_a_destruction_waits_7_to_30_days(world: World, wait: timedelta) -> None:
    async with world.open() as km:
        key = await rotated(km, world)
        with pytest.raises(InvalidInputError, match="7 to 30 days"):
            await (await destruction_of(km)).schedule(key.id, wait=wait, without_sources=True)
        for wait_ in (7 * DAY, 30 * DAY):
            await (await destruction_of(km)).schedule(key.id, wait=wait_, without_sources=True)
            await (await destruction_of(km)).cancel(key.id)


async def test_a_destruction_can_be_called_off_until_it_happens(world: World, clock: FakeClock) -> None:
    async with world.open(grace_s=None) as km:
        sealed = km.local_encrypt(b"x")
        key = await rotated(km, world)
        destruction = await destruction_of(km)
        await destruction.schedule(key.id, without_sources=True)
        cancelled = await destruction.cancel(key.id)
        assert (cancelled.state, cancelled.destroy_after) == (S.DISABLED, None)
        clock.advance(31 * DAY)
        assert await destruction.run_due() == []
        await destruction.enable(key.id)
        assert km.local_decrypt(sealed) == b"x"


async def test_without_a_declared_source_the_caller_must_say_so(world: World) -> None:
    async with world.open() as km:
        key = await rotated(km, world)
        with pytest.raises(KeyStateError, match="no data source"):
            await (await destruction_of(km)).schedule(key.id)
        assert await state(world, key) is S.DECRYPT_ONLY


async def test_data_under_a_key_keeps_it_from_being_scheduled_and_from_being_destroyed(
    world: World, clock: FakeClock, application: Application
) -> None:
    async with world.open(key_sources={"people": application}) as km:
        key = await rotated(km, world)
        await declared(world, "people", "archive")
        destruction = await destruction_of(km)
        application.hits[key.id] = 3
        for without in (False, True):
            with pytest.raises(KeyInUseError, match=r"people \(3\)"):
                await destruction.schedule(key.id, without_sources=without)
        application.hits[key.id] = 0
        await destruction.schedule(key.id)
        clock.advance(31 * DAY)
        application.hits[key.id] = 1
        with pytest.raises(KeyInUseError, match="re-encrypt"):
            await destruction.run_due()
        assert await state(world, key) is S.PENDING_DESTROY
        application.hits[key.id] = 0
        assert len(await destruction.run_due()) == 1


async def test_one_key_in_use_does_not_keep_the_others(
    world: World, clock: FakeClock, application: Application, caplog: pytest.LogCaptureFixture
) -> None:
    async with world.open(key_sources={"people": application}) as km:
        await declared(world)
        destruction = await destruction_of(km)
        for _ in range(3):
            await rotated(km, world)
        old = (await world.rows("default"))[:3]
        for key in old:
            await destruction.schedule(key.id)
        clock.advance(31 * DAY)
        application.hits[old[1].id] = 1
        with caplog.at_level(logging.WARNING), pytest.raises(KeyInUseError):
            await destruction.run_due()
        assert [await state(world, key) for key in old] == [S.DESTROYED, S.PENDING_DESTROY, S.DESTROYED]
        assert "key_in_use" in caplog.text


@pytest.mark.parametrize(
    ("failure", "expected"),
    [(ValueError("odd"), CleanupFailedError), (StoreUnavailableError("away"), StoreUnavailableError)],
)
async def test_a_source_that_cannot_be_looked_through_keeps_its_keys(
    world: World, clock: FakeClock, application: Application, failure: Exception, expected: type[Exception]
) -> None:
    async with world.open(key_sources={"people": application}) as km:
        key = await rotated(km, world)
        await declared(world)
        destruction = await destruction_of(km)
        application.failure = failure
        with pytest.raises(expected):
            await destruction.schedule(key.id)
        application.failure = None
        await destruction.schedule(key.id)
        clock.advance(31 * DAY)
        application.failure = failure
        with pytest.raises(expected):
            await destruction.run_due()
        assert await state(world, key) is S.PENDING_DESTROY


async def test_an_application_source_this_process_does_not_have_is_named(world: World) -> None:
    async with world.open() as km:
        key = await rotated(km, world)
        await declared(world)
        with pytest.raises(ConfigurationError, match="key_sources="):
            await (await destruction_of(km)).schedule(key.id)


async def test_a_file_is_a_source_by_itself(world: World, tmp_path: Any) -> None:
    async with world.open() as km:
        (tmp_path / "data.bin").write_bytes(km.local_encrypt(b"x"))
        key = await rotated(km, world)
        async with world.store.transaction() as work:
            await work.declare_use(KeyUse("files", "default", f"file:{tmp_path}/*.bin"))
        destruction = await destruction_of(km)
        with pytest.raises(KeyInUseError, match=r"files \(1\)"):
            await destruction.schedule(key.id)
        (tmp_path / "data.bin").write_bytes(await km.reencrypt((tmp_path / "data.bin").read_bytes()))
        await destruction.schedule(key.id)


async def test_a_node_that_has_not_seen_the_demotion_keeps_the_key(world: World, clock: FakeClock) -> None:
    async with world.open() as km, world.open() as behind:
        await polled(km, behind)
        key = await rotated(km, world)
        destruction = await destruction_of(km)
        with pytest.raises(KeyStateError, match="1 running process"):
            await destruction.schedule(key.id, without_sources=True)
        await polled(behind)
        await destruction.schedule(key.id, without_sources=True)


async def test_a_node_that_died_keeps_no_key_for_longer_than_its_lease(world: World, clock: FakeClock) -> None:
    async with world.open() as km, world.open() as dead:
        await polled(km, dead)
        key = await rotated(km, world)
        clock.advance(61)
        await polled(km)
        await (await destruction_of(km)).schedule(key.id, without_sources=True)


async def test_an_active_version_is_neither_disabled_nor_destroyed(world: World) -> None:
    async with world.open() as km:
        active = await km.get_active_data_key()
        destruction = await destruction_of(km)
        for change in (destruction.disable, destruction.enable, destruction.cancel, destruction.schedule):
            with pytest.raises(KeyStateError, match="is active"):
                await change(active.id)
        with pytest.raises(KeyNotFoundError, match="no data key 7"):
            await destruction.disable(7)


async def test_a_wrap_key_is_destroyed_once_it_wraps_nothing(world: World, clock: FakeClock) -> None:
    async with world.open(grace_s=None) as km:
        sealed = km.local_encrypt(b"x")
        session = await session_of(km)
        await session.lifecycle.rotation.rotate(WRAP_KEYRING)
        [old, _] = await world.rows(WRAP_KEYRING)
        for change in (session.lifecycle.destruction.disable, session.lifecycle.destruction.schedule):
            with pytest.raises(KeyInUseError, match="rewrap"):
                await change(old.id)
        await session.lifecycle.rewrap.run(new_wrap_version=False)
        await session.lifecycle.destruction.schedule(old.id)
        clock.advance(31 * DAY)
        assert [row.id for row in await session.lifecycle.destruction.run_due()] == [old.id]
        assert km.local_decrypt(sealed) == b"x"
    async with world.open() as km:
        assert km.local_decrypt(sealed) == b"x"


async def test_a_destruction_that_was_changed_since_it_was_looked_at_is_not_carried_out(world: World) -> None:
    async with world.open() as km:
        key = await rotated(km, world)
        destruction = await destruction_of(km)
        pending = await destruction.schedule(key.id, without_sources=True)
        await destruction.cancel(key.id)
        with pytest.raises(KeyStateError, match="changed meanwhile"):
            await destruction.destroy_now(pending)
        again = await destruction.schedule(key.id, without_sources=True)
        with pytest.raises(KeyStateError, match="changed meanwhile"):
            await destruction.destroy_now(pending)
        assert (await destruction.destroy_now(again)).state is S.DESTROYED


async def test_an_imported_key_names_itself_by_its_old_version_which_no_scan_finds(world: World) -> None:
    async with world.open() as km:
        session = await session_of(km)
        key = await rotated(km, world)
        async with world.store.transaction() as work:
            await work.add_key(replace(key, id=77, version=9, legacy_version="v1700000000"))
        await declared(world)
        with pytest.raises(KeyStateError, match="v1700000000"):
            await session.lifecycle.destruction.schedule(77)


async def test_every_version_that_is_due_is_destroyed(world: World, clock: FakeClock) -> None:
    async with world.open() as km:
        destruction = await destruction_of(km)
        for _ in range(4):
            await rotated(km, world)
        for key in (await world.rows("default"))[:4]:
            await destruction.schedule(key.id, without_sources=True)
        clock.advance(31 * DAY)
        assert len(await destruction.run_due()) == 4


def test_every_pair_of_states_is_decided() -> None:
    assert set(TRANSITIONS) == set(DataKeyState)
    for before in DataKeyState:
        key = KeyRecord(1, "k", 1, None, before, "a", None, "c")  # type: ignore[arg-type]
        for after in DataKeyState:
            if after in TRANSITIONS[before]:
                require_transition(key, after)
                continue
            with pytest.raises(KeyStateError, match="cannot become"):
                require_transition(key, after)


@pytest.mark.parametrize("target", [S.PRE_ACTIVE])
def test_a_state_nothing_leads_to_is_said_to_be_so(target: DataKeyState) -> None:
    key = KeyRecord(1, "k", 1, None, S.ACTIVE, "a", None, "c")  # type: ignore[arg-type]
    with pytest.raises(KeyStateError, match="no state at all"):
        require_transition(key, target)
