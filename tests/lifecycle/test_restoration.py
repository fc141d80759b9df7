"""Backup, restore, export, import: nothing encrypts until the store is recovered, and nothing is given out twice."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from keystead.errors import (
    DataKeyNotLoadedError,
    InvalidInputError,
    KeyRotationError,
    KeyStateError,
    NoActiveKeyError,
    StoreRestoredError,
)
from keystead.lifecycle.destruction import SHORTEST_WAIT
from keystead.lifecycle.live_keyrings import EPOCH_LEAP
from keystead.lifecycle.restoration import (
    SKIPPED_VERSIONS,
    RecoveryReport,
    recover_store,
)
from keystead.manager.manager import KeyManager
from keystead.model import WRAP_KEYRING, DataKeyState, StoreState
from keystead.ports import KeyStore
from tests.fakes.clock import FakeClock
from tests.fakes.world import CountingStore, World, copied, polled, put_back, session_of

DAY = timedelta(days=1)


async def recover(km: KeyManager) -> RecoveryReport:
    session = await session_of(km)
    return await recover_store(session.live, session.lifecycle.rotation, session.lifecycle.destruction)


async def test_the_restore_drill(world: World, tmp_path: Path) -> None:
    """Backup, 50 rotations, restore of the backup."""
    async with world.open(state_dir=tmp_path) as km:
        kept = [km.local_encrypt(b"kept")]
        hashed = km.hash_field(b"ada@example.org")
        await km.rotate_data_key()
        kept.append(km.local_encrypt(b"kept"))
        backup = copied(world.store)
        lost = []
        for _ in range(50):
            await km.rotate_data_key()
            lost.append(km.local_encrypt(b"lost"))
        used = {row.version for row in await world.rows("default")}
        ids = {row.id for row in await world.rows()}

    put_back(world.store, backup)
    async with world.open(state_dir=tmp_path) as km:
        assert [km.local_decrypt(blob) for blob in kept] == [b"kept"] * 2
        assert km.hash_field(b"ada@example.org") == hashed
        tenant = await refused(km.keyring("new"))
        assert tenant
        for _ in range(2):
            with pytest.raises(StoreRestoredError, match="keystead store recover"):
                km.local_encrypt(b"x")
            with pytest.raises(StoreRestoredError):
                await km.rotate_data_key()
        for blob in lost[::10]:
            key_id = int.from_bytes(blob[2:10], "big")
            with pytest.raises(DataKeyNotLoadedError, match=f"data key {key_id} .* existed and is gone"):
                await km.decrypt_local(blob)
        await km.perform_maintenance()
        assert len(await world.rows("default")) == 2

        report = await recover(km)
        assert report.rotated == 2  # WRAP and default; an INDEX key has no successors
        assert {version for _, keyring, version in report.gone if keyring == "default"} == set(range(3, 53))
        assert km.local_decrypt(km.local_encrypt(b"new")) == b"new"
        assert [km.local_decrypt(blob) for blob in kept] == [b"kept"] * 2
        assert km.hash_field(b"ada@example.org") == hashed
        made = [row for row in await world.rows("default") if row.version > 2]
        assert [row.version for row in made] == [2 + SKIPPED_VERSIONS + 1]
        assert not {row.version for row in made} & used
        assert not {row.id for row in made} & ids
        assert (await km.rotate_data_key()).version == 2 + SKIPPED_VERSIONS + 2
        index = await world.rows("keystead.index")
        assert [row.version for row in index] == [1]
        with pytest.raises(InvalidInputError, match="not restored"):
            await recover(km)
    async with world.open(state_dir=tmp_path) as km:
        assert km.local_decrypt(km.local_encrypt(b"new")) == b"new"
        assert [km.local_decrypt(blob) for blob in kept] == [b"kept"] * 2


async def refused(keyring: Any) -> bool:
    with pytest.raises(StoreRestoredError):
        await keyring
    return True


async def test_a_running_node_notices_the_restore_and_reads_what_it_has_in_memory(world: World) -> None:
    async with world.open() as km:
        await polled(km)
        old = km.local_encrypt(b"old")
        backup = copied(world.store)
        await km.rotate_data_key(promote="now")
        newer = km.local_encrypt(b"newer")
        put_back(world.store, backup)
        await polled(km)
        with pytest.raises(StoreRestoredError):
            km.local_encrypt(b"x")
        # The row is gone from the store, and this process may hold the last copy of its key.
        assert (km.local_decrypt(old), km.local_decrypt(newer)) == (b"old", b"newer")
        await recover(km)
        sealed = km.local_encrypt(b"x")
        assert sealed[2:10] not in (old[2:10], newer[2:10])
        assert (km.local_decrypt(old), km.local_decrypt(newer)) == (b"old", b"newer")


async def test_a_node_that_slept_through_restore_and_recovery_encrypts_under_nothing_that_is_gone(
    world: World,
) -> None:
    async with world.open() as asleep:
        await polled(asleep)
        backup = copied(world.store)
        await asleep.rotate_data_key(promote="now")
        tenant = await asleep.keyring("made after the backup")
        for sealed in (asleep.local_encrypt(b"x"), tenant.local_encrypt(b"x")):
            assert sealed
        put_back(world.store, backup)
        async with world.open() as other:
            async with world.store.transaction() as work:
                await work.set_restored(True)
            await polled(other)
            await recover(other)
            await polled(asleep)
            fresh = asleep.local_encrypt(b"x")
            assert other.local_decrypt(fresh) == b"x"
            with pytest.raises(NoActiveKeyError):
                tenant.local_encrypt(b"x")
            tenant = await asleep.keyring("made after the backup")
            assert (await other.keyring(tenant.name)).local_decrypt(tenant.local_encrypt(b"x")) == b"x"


async def test_a_start_on_a_restored_store_marks_it_for_everybody(world: World, tmp_path: Path) -> None:
    async with world.open(state_dir=tmp_path) as km:
        backup = copied(world.store)
        await km.rotate_data_key()
    put_back(world.store, backup)
    async with world.open(state_dir=tmp_path):
        pass
    async with world.open() as km:  # which remembers nothing
        with pytest.raises(StoreRestoredError):
            km.local_encrypt(b"x")
        with pytest.raises(StoreRestoredError):
            await km.default.promote(force=True)


async def test_a_restored_store_without_the_keyring_that_is_asked_for_says_why(world: World) -> None:
    async with world.open():
        pass
    async with world.store.transaction() as work:
        await work.set_restored(True)
    with pytest.raises(StoreRestoredError):
        async with world.open(keyring="another"):
            pass


async def test_a_restored_store_without_any_key_makes_none(world: World) -> None:
    await world.store.open()
    async with world.store.transaction() as work:
        await work.set_restored(True)
    with pytest.raises(StoreRestoredError):
        async with world.open():
            pass
    assert await world.rows() == []


async def test_a_waiting_version_is_not_promoted_in_a_restored_store(world: World) -> None:
    async with world.open() as one, world.open() as two:
        await polled(one, two)
        waiting = await one.rotate_data_key()
        assert waiting.state is DataKeyState.PRE_ACTIVE
        async with world.store.transaction() as work:
            await work.set_restored(True)
        await polled(one, two)
        assert (await one.perform_maintenance()).promoted == 0
        assert (await world.rows("default"))[1].state is DataKeyState.PRE_ACTIVE
        await recover(one)
        states = [row.state for row in await world.rows("default")]
        assert states == [DataKeyState.DECRYPT_ONLY, DataKeyState.DECRYPT_ONLY, DataKeyState.ACTIVE]


# --- destructions


async def test_what_was_destroyed_after_the_backup_is_destroyed_again(
    world: World, clock: FakeClock, tmp_path: Path
) -> None:
    async with world.open(state_dir=tmp_path, grace_s=None) as km:
        sealed = km.local_encrypt(b"x")
        await km.rotate_data_key()
        kept = km.local_encrypt(b"kept")
        session = await session_of(km)
        await session.lifecycle.rotation.rotate(WRAP_KEYRING)
        backup = copied(world.store)  # in which WRAP version 1 still wraps everything
        await session.lifecycle.rewrap.run(new_wrap_version=False)
        doomed = [(await world.rows("default"))[0], (await world.rows(WRAP_KEYRING))[0]]
        for key in doomed:
            await session.lifecycle.destruction.schedule(key.id, without_sources=True)
        clock.advance(31 * DAY)
        assert len(await session.lifecycle.destruction.run_due()) == 2
    put_back(world.store, backup)
    async with world.open(state_dir=tmp_path, grace_s=None) as km:
        report = await recover(km)
        assert report.destroyed_again == sorted(key.id for key in doomed)
        states = {row.id: row for row in await world.rows()}
        assert [(states[key.id].state, states[key.id].wrapped_key) for key in doomed] == [
            (DataKeyState.DESTROYED, None)
        ] * 2
        with pytest.raises(KeyStateError, match="destroyed"):
            km.local_decrypt(sealed)
        assert km.local_decrypt(kept) == b"kept"
    async with world.open(state_dir=tmp_path) as km:
        assert km.local_decrypt(kept) == b"kept"


async def test_a_wrap_key_that_still_wraps_something_survives_the_recovery(
    world: World, clock: FakeClock, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with world.open(state_dir=tmp_path, grace_s=None) as km:
        session = await session_of(km)
        await session.lifecycle.rotation.rotate(WRAP_KEYRING)
        await km.rotate_data_key()
        [old, _] = await world.rows("default")
        async with world.store.transaction() as work:
            await work.change_key(old.id, old.state, wrapped_key=bytes(len(old.wrapped_key or b"")))
        backup = copied(world.store)
        wrap = (await world.rows(WRAP_KEYRING))[0]
        session.surroundings.journal.append(session.live.store_id, destroyed=[wrap.id], epoch=10_000)
    put_back(world.store, backup)
    async with world.open(state_dir=tmp_path, grace_s=None) as km:
        report = await recover(km)
        assert report.destroyed_again == []
        assert "was not destroyed again" in caplog.text
        assert (await world.rows(WRAP_KEYRING))[0].state is DataKeyState.DECRYPT_ONLY
        assert km.local_decrypt(km.local_encrypt(b"x")) == b"x"


async def test_a_restored_store_destroys_nothing_and_a_recovered_one_waits_another_week(
    world: World, clock: FakeClock
) -> None:
    async with world.open(grace_s=None) as km:
        await km.rotate_data_key()
        await km.rotate_data_key()
        session = await session_of(km)
        soon, late = (await world.rows("default"))[:2]
        await session.lifecycle.destruction.schedule(soon.id, wait=7 * DAY, without_sources=True)
        await session.lifecycle.destruction.schedule(late.id, wait=30 * DAY, without_sources=True)
        async with world.store.transaction() as work:
            await work.set_restored(True)  # and that it was called off is lost
        clock.advance(8 * DAY)
        await polled(km)
        assert await session.lifecycle.destruction.run_due() == []
        report = await recover(km)
        assert report.postponed == sorted((soon.id, late.id))
        assert await session.lifecycle.destruction.run_due() == []
        rows = {row.id: row.destroy_after for row in await world.rows("default")}
        assert rows[soon.id] == clock.now() + SHORTEST_WAIT
        assert rows[late.id] == late.created_at + 30 * DAY
        clock.advance(SHORTEST_WAIT)
        assert len(await session.lifecycle.destruction.run_due()) == 1


# --- recovery


async def test_a_recovery_that_was_killed_is_run_again(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with world.open(state_dir=tmp_path) as km:
        sealed = km.local_encrypt(b"x")
        await km.keyring("tenant")
        async with world.store.transaction() as work:
            await work.set_restored(True)
        await polled(km)
        rotation = (await session_of(km)).lifecycle.rotation
        rotate = rotation.rotate

        async def killed(name: str, **options: Any) -> Any:
            if name == "tenant":
                raise KeyboardInterrupt
            return await rotate(name, **options)

        monkeypatch.setattr(rotation, "rotate", killed)
        with pytest.raises(KeyboardInterrupt):
            await recover(km)
    monkeypatch.undo()
    async with world.open(state_dir=tmp_path) as km:
        with pytest.raises(StoreRestoredError):
            km.local_encrypt(b"x")
        assert (await recover(km)).rotated == 3
        assert km.local_decrypt(sealed) == b"x"
        assert km.local_decrypt(km.local_encrypt(b"y")) == b"y"
        versions = [row.version for row in await world.rows("default")]
        assert versions == [1, 1002, 2003]
        async with world.store.reading() as work:
            assert (await work.state()).epoch > 2 * EPOCH_LEAP


async def test_a_recovery_needs_the_kms(world: World) -> None:
    async with world.open() as km:
        async with world.store.transaction() as work:
            await work.set_restored(True)
        await polled(km)
        world.kms.fail_always()
        with pytest.raises(KeyRotationError):
            await recover(km)
        with pytest.raises(StoreRestoredError):
            km.local_encrypt(b"x")
        world.kms.heal()
        await recover(km)
        assert km.local_decrypt(km.local_encrypt(b"y")) == b"y"


class Overtaken(CountingStore):
    """A store in which another process goes on while this one has read its state, and not yet the journal."""

    def __init__(self, store: KeyStore, meanwhile: Callable[[], Awaitable[object]]) -> None:
        super().__init__(store)
        self._meanwhile = meanwhile

    async def open(self) -> StoreState:
        state: StoreState = await super().open()
        await self._meanwhile()
        return state


async def test_a_process_that_starts_while_another_rotates_does_not_take_the_store_for_a_restored_one(
    world: World, tmp_path: Path
) -> None:
    async with world.open(state_dir=tmp_path) as other:

        async def rotate() -> None:
            await other.rotate_data_key()
            await polled(other)

        async with world.open(store=Overtaken(world.store, rotate), state_dir=tmp_path) as km:
            session = await session_of(km)
            assert not session.live.has_noticed_restore
            assert other.local_decrypt(km.local_encrypt(b"value")) == b"value"
