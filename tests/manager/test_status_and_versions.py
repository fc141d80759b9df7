"""What a manager tells about itself and its data keys."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from keystead.errors import (
    InvalidKeyVersionError,
    KeyNotFoundError,
    NoActiveKeyError,
    StoreUnavailableError,
)
from keystead.lifecycle.algorithms import LEGACY_ALGORITHM
from keystead.manager.manager import KeyManager
from keystead.model import DataKeyState, KeyringPurpose, KeyStatistics, RotationPolicy
from tests.fakes.clock import FakeClock
from tests.fakes.world import CountingStore, World, polled, session_of

LEGACY = "v1700000000000000000"


async def test_the_status_before_the_start(world: World) -> None:
    km = world.manager(rotation_policy=RotationPolicy(rotation_period_days=0.5))
    status = await km.get_status()
    assert (status.initialized, status.shutdown, status.algorithm) == (False, False, "AES-256-GCM")
    assert status.rotate_interval == timedelta(hours=12)
    assert (status.active_key_version, status.active_key_expiry) == (None, None)
    assert status.key_statistics == KeyStatistics(0, 0, 0)
    await km.close()


async def test_the_status_of_a_running_manager(world: World, clock: FakeClock) -> None:
    async with world.open(rotation_policy=RotationPolicy(rotation_period=timedelta(days=10))) as km:
        await km.keyring("tenant")  # counts nothing: the statistics are the default keyring's
        await km.rotate_data_key()
        status = await km.get_status()
        assert (status.initialized, status.shutdown, status.active_key_version) == (True, False, 2)
        assert status.active_key_expiry == clock.now() + timedelta(days=10)
        assert status.key_statistics == KeyStatistics(total_keys=2, active_keys=1, expired_keys=0)
        clock.advance(timedelta(days=11))
        await km.rotate_data_key()
        assert (await km.get_status()).key_statistics == KeyStatistics(3, 1, 2)


async def test_the_status_after_the_end(world: World) -> None:
    async with world.open() as km:
        pass
    status = await km.get_status()
    assert (status.initialized, status.shutdown, status.active_key_version) == (False, True, None)


async def test_the_status_with_the_store_away(world: World) -> None:
    world.store = store = CountingStore(world.store)
    async with world.open() as km:
        store.failure = StoreUnavailableError("away")
        status = await km.get_status()
        assert (status.initialized, status.shutdown, status.active_key_version) == (True, False, None)
        store.failure = None
        assert (await km.get_status()).active_key_version == 1


async def test_the_status_of_a_keyring_without_active_version(world: World) -> None:
    async with world.open() as km:
        active = await km.get_active_data_key()
        async with world.store.transaction() as work:
            await work.change_key(active.id, DataKeyState.ACTIVE, state=DataKeyState.DECRYPT_ONLY)
        with pytest.raises(NoActiveKeyError, match="rotate"):
            await km.get_active_data_key()
        status = await km.get_status()
        assert (status.initialized, status.active_key_version) == (True, None)


async def test_the_status_of_a_manager_closed_meanwhile(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    async with world.open() as km:
        known = km.get_active_data_key

        async def then_close() -> Any:
            info = await known()
            await km.close()
            return info

        monkeypatch.setattr(km, "get_active_data_key", then_close)
        assert (await km.get_status()).shutdown


async def test_the_active_version_is_told_without_its_bytes(world: World, clock: FakeClock) -> None:
    async with world.open() as km:
        info = await km.get_active_data_key()
        assert (info.version, info.keyring, info.algorithm, info.is_active) == (1, "default", "AES-256-GCM", True)
        assert info.state is DataKeyState.ACTIVE
        assert info.created_at == clock.now()
        assert info.expires_at == clock.now() + timedelta(days=90)
        assert not any(isinstance(getattr(info, name), bytes) for name in info.__slots__)


async def test_a_version_is_found_by_its_number(world: World) -> None:
    async with world.open() as km:
        await km.rotate_data_key()
        first, second = await km.get_data_key_by_version(1), await km.get_data_key_by_version(2)
        assert (first.state, second.state) == (DataKeyState.DECRYPT_ONLY, DataKeyState.ACTIVE)
        with pytest.raises(KeyNotFoundError, match="no version 3"):
            await km.get_data_key_by_version(3)


async def add_legacy(world: World, km: KeyManager) -> int:
    s = (await session_of(km)).surroundings
    keyring = replace(s.new_keyring("legacy", KeyringPurpose.ENCRYPT), algorithm=LEGACY_ALGORITHM)
    row = replace(s.new_row(keyring, 1), state=DataKeyState.DECRYPT_ONLY, wrapped_key=bytes(64), legacy_version=LEGACY)
    async with world.store.transaction() as work:
        await work.add_keyring(keyring)
        await work.add_key(row)
    return row.id


async def test_an_imported_version_is_found_by_its_text(world: World) -> None:
    async with world.open() as km:
        imported = await add_legacy(world, km)
        info = await km.get_data_key_by_version(LEGACY)
        assert (info.id, info.keyring, info.legacy_version) == (imported, "legacy", LEGACY)
        with pytest.raises(KeyNotFoundError):
            await km.get_data_key_by_version("v1")


@pytest.mark.parametrize("version", [0, -1, True, False, "", None, 1.0, b"v1"])
async def test_what_is_no_version_is_refused(world: World, version: Any) -> None:
    async with world.open() as km:
        with pytest.raises(InvalidKeyVersionError, match="positive number"):
            await km.get_data_key_by_version(version)


async def test_the_policy_tells_last_and_next_rotation(world: World, clock: FakeClock) -> None:
    policy = RotationPolicy(rotation_period=timedelta(days=10), max_messages=5)
    async with world.open(rotation_policy=policy) as km:
        clock.advance(timedelta(days=1))
        await polled(km)
        await km.rotate_data_key()
        in_force = km.get_rotation_policy()
        assert in_force == replace(policy, last_rotation=clock.now(), next_rotation=clock.now() + timedelta(days=8))


async def test_all_versions_of_a_keyring_are_told_oldest_first(world: World) -> None:
    async with world.open() as km:
        for _ in range(4):
            await km.rotate_data_key()
        assert [info.version for info in await km.default.versions()] == [1, 2, 3, 4, 5]


async def test_maintenance_reports_what_it_did_and_what_failed(world: World, clock: FakeClock) -> None:
    world.store = store = CountingStore(world.store)
    async with world.open() as km:
        report = await km.perform_maintenance()
        assert (report.rotated, report.failures) == (0, {})
        clock.advance(timedelta(days=80))
        assert (await km.perform_maintenance()).rotated == 1
        km.local_encrypt(b"x")
        store.failure = StoreUnavailableError("away")
        report = await km.perform_maintenance()
        assert report.failures["uses"] == report.failures["poll"] == report.failures["rotated"] == "store_unavailable"
        store.failure = None
        assert (await km.perform_maintenance()).failures == {}
        assert (await km.get_active_data_key()).messages == 1
