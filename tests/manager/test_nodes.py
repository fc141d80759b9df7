"""A manager as one of the processes of a store: rotation, use counts, and a KMS that is away."""

from __future__ import annotations

import contextlib
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from keystead.errors import (
    ConfigurationError,
    KeyExpiredError,
    KeyRotationError,
    KeyStateError,
    NoActiveKeyError,
    ProviderAuthError,
    ProviderConnectionError,
    StoreRestoredError,
    StoreUnavailableError,
)
from keystead.manager.assembly import SourceScan
from keystead.model import DataKeyState, RotationPolicy
from keystead.ports import KeyUse
from tests.fakes.world import CountingStore, World, polled, session_of

ACTIVE, PRE_ACTIVE = DataKeyState.ACTIVE, DataKeyState.PRE_ACTIVE
TEST_KEY = bytes(range(32))


async def test_a_rotation_waits_for_the_other_manager_and_is_promoted_when_it_has_polled(world: World) -> None:
    async with world.open() as one, world.open() as two:
        await polled(one, two)
        info = await one.rotate_data_key()
        assert (info.version, info.state) == (2, PRE_ACTIVE)
        assert (await one.get_active_data_key()).version == 1
        await two.run_due()  # polls and promotes
        world.clock.advance(30)
        await one.run_due()
        assert (await one.get_active_data_key()).version == 2
        sealed = one.local_encrypt(b"x")
        assert two.local_decrypt(sealed) == b"x"


async def test_a_rotation_now_waits_for_nobody(world: World) -> None:
    async with world.open() as one, world.open() as two:
        await polled(one, two)
        assert (await one.rotate_data_key(promote="now")).state is ACTIVE
        assert await two.decrypt_local(one.local_encrypt(b"x")) == b"x"


async def test_a_young_version_is_not_rotated(world: World) -> None:
    async with world.open() as km:
        assert (await km.rotate_data_key(min_age=timedelta(hours=1))).version == 1
        world.clock.advance(timedelta(hours=1))
        assert (await km.rotate_data_key(min_age=timedelta(hours=1))).version == 2


async def test_managers_on_one_schedule_rotate_once(world: World) -> None:
    async with world.open() as one, world.open() as two, world.open() as three:
        infos = [await km.rotate_data_key() for km in (one, two, three)]
        assert [info.version for info in infos] == [2, 2, 2]


async def test_one_of_two_managers_runs_a_due_rotation(world: World) -> None:
    async with world.open() as one, world.open() as two:
        world.clock.advance(timedelta(days=80))
        await one.run_due()
        world.clock.advance(30)
        await two.run_due()
        assert {row.version for row in await world.rows("default")} == {1, 2}


async def test_use_counts_are_added_at_close(world: World) -> None:
    async with world.open() as km:
        for _ in range(20):
            km.local_encrypt(b"12345")
        assert (await km.get_active_data_key()).messages == 0
    row = (await world.rows("default"))[0]
    assert (row.messages, row.bytes) == (20, 100)


async def test_use_counts_are_added_every_minute(world: World) -> None:
    async with world.open() as km:
        km.local_encrypt(b"12345")
        world.clock.advance(59)
        await km.run_due()
        assert (await km.get_active_data_key()).messages == 0
        world.clock.advance(1)
        await km.run_due()
        info = await km.get_active_data_key()
        assert (info.messages, info.bytes) == (1, 5)
        world.clock.advance(60)
        await km.run_due()
        assert (await km.get_active_data_key()).messages == 1


async def test_use_counts_of_several_managers_add_up(world: World) -> None:
    async with world.open() as one, world.open() as two:
        for km in (one, two, two):
            km.local_encrypt(b"x")
    assert (await world.rows("default"))[0].messages == 3


async def test_counts_that_could_not_be_written_are_written_later(world: World) -> None:
    world.store = store = CountingStore(world.store)
    async with world.open() as km:
        session = await session_of(km)
        km.local_encrypt(b"12345")
        store.failure = StoreUnavailableError("away")
        for _ in range(2):
            with pytest.raises(StoreUnavailableError):
                await session.uses.flush()
        km.local_encrypt(b"12345")
        store.failure = None
        await session.uses.flush()
        assert (await km.get_active_data_key()).messages == 2
        assert (await km.get_active_data_key()).bytes == 10


async def test_counts_taken_while_a_write_fails_are_kept(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.store = store = CountingStore(world.store)
    async with world.open() as km:
        session = await session_of(km)
        key_id = (await km.get_active_data_key()).id
        km.local_encrypt(b"12345")
        real = store._store.transaction

        def fail_after_another_took_counts(*, once: bool) -> Any:
            session.uses._uses[key_id] = (3, 30)  # as a second flush does that begins meanwhile and fails first
            raise StoreUnavailableError("away")

        monkeypatch.setattr(store._store, "transaction", fail_after_another_took_counts)
        with pytest.raises(StoreUnavailableError):
            await session.uses.flush()
        monkeypatch.setattr(store._store, "transaction", real)
        await session.uses.flush()
        assert (await km.get_active_data_key()).messages == 4


@pytest.mark.parametrize("policy", [RotationPolicy(max_messages=10), RotationPolicy(max_bytes=1000)])
async def test_a_version_is_rotated_at_80_percent_of_its_messages_or_bytes(
    world: World, policy: RotationPolicy
) -> None:
    async with world.open(rotation_policy=policy) as km:
        for messages in (7, 1):
            assert (await km.get_active_data_key()).version == 1
            for _ in range(messages):
                km.local_encrypt(bytes(100))
            world.clock.advance(60)
            await km.run_due()  # rotates by the counts known so far, then adds this minute's
            world.clock.advance(60)
            await km.run_due()
        assert (await km.get_active_data_key()).version == 2


async def test_an_outage_is_bridged_for_the_grace_and_then_everything_fails_closed(world: World) -> None:
    async with world.open(kek_recheck_s=3600, grace_s=600) as km:
        tenant = await km.keyring("tenant")
        sealed = km.local_encrypt(b"x")
        world.kms.fail_always()
        world.clock.advance(3600)
        await polled(km)
        assert km.local_decrypt(km.local_encrypt(b"x")) == b"x"
        world.clock.advance(590)
        await polled(km)
        assert km.local_decrypt(sealed) == b"x"
        world.clock.advance(60)
        await polled(km)
        for call in (
            lambda: km.local_encrypt(b"x"),
            lambda: km.local_decrypt(sealed),
            lambda: tenant.local_encrypt(b"x"),
            lambda: km.hash_field("x"),
        ):
            with pytest.raises(ProviderConnectionError) as refused:
                call()
            assert refused.value.retryable
        world.kms.heal()
        world.clock.advance(30)
        await polled(km)
        assert km.local_decrypt(sealed) == b"x"
        assert km.local_decrypt(km.local_encrypt(b"x")) == b"x"


async def test_a_grace_without_end_outlasts_every_outage(world: World) -> None:
    async with world.open(grace_s=None) as km:
        world.kms.fail_always()
        for _ in range(3):
            world.clock.advance(timedelta(days=7))
            await polled(km)
        assert km.local_decrypt(km.local_encrypt(b"x")) == b"x"


@pytest.mark.parametrize("against", ["deny", "disable"])
async def test_a_kms_that_says_no_ends_use_at_once(world: World, against: str) -> None:
    async with world.open() as km:
        sealed = km.local_encrypt(b"x")
        getattr(world.kms, against)()
        world.clock.advance(3600)
        await polled(km)
        expected = ProviderAuthError if against == "deny" else KeyStateError
        for call in (lambda: km.local_encrypt(b"x"), lambda: km.local_decrypt(sealed)):
            with pytest.raises(expected):
                call()  # type: ignore[no-untyped-call]
        world.kms.heal()
        world.clock.advance(30)
        await polled(km)
        assert km.local_decrypt(sealed) == b"x"


async def test_a_manager_that_slept_through_its_grace_recovers_by_polling(world: World) -> None:
    async with world.open() as km:
        sealed = km.local_encrypt(b"x")
        world.clock.advance(timedelta(days=1))
        await polled(km)
        assert km.local_decrypt(sealed) == b"x"
        assert (await km.rotate_data_key()).version == 2
        assert km.local_decrypt(km.local_encrypt(b"y")) == b"y"


async def test_a_rotation_beyond_the_grace_is_made_good_by_polling(world: World) -> None:
    async with world.open() as km:
        sealed = km.local_encrypt(b"x")
        world.clock.advance(timedelta(days=1))
        with contextlib.suppress(KeyRotationError):
            await km.rotate_data_key()
        await polled(km)
        await polled(km)
        assert km.local_decrypt(sealed) == b"x"
        assert km.local_decrypt(km.local_encrypt(b"y")) == b"y"


async def test_without_a_rotation_a_version_that_ran_out_encrypts_no_more(
    world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with world.open() as km:
        sealed = km.local_encrypt(b"x")
    world.clock.advance(timedelta(days=91))

    def refuse(*arguments: object) -> bytes:
        raise ProviderConnectionError("away")

    monkeypatch.setattr("keystead.lifecycle.rotation.seal_key", refuse)
    async with world.open() as km:
        assert "could not be replaced" in caplog.text
        with pytest.raises(KeyExpiredError):
            km.local_encrypt(b"x")
        assert km.local_decrypt(sealed) == b"x"


async def test_a_restored_store_decrypts_and_encrypts_no_more(world: World) -> None:
    async with world.open() as km:
        sealed = km.local_encrypt(b"x")
        async with world.store.transaction() as work:
            await work.set_restored(True)
        await polled(km)
        assert (await session_of(km)).is_restored
        with pytest.raises(StoreRestoredError):
            km.local_encrypt(b"x")
        with pytest.raises(StoreRestoredError):
            await km.rotate_data_key()
        assert km.local_decrypt(sealed) == b"x"


async def test_a_keyring_without_active_version_is_polled_all_the_same(world: World) -> None:
    async with world.open() as km:
        active = await km.get_active_data_key()
        async with world.store.transaction() as work:
            epoch = await work.bump_epoch()
            await work.change_key(active.id, ACTIVE, state=DataKeyState.DECRYPT_ONLY, published_epoch=epoch)
        await polled(km)
        with pytest.raises(NoActiveKeyError):
            km.local_encrypt(b"x")
        km.needs_reencrypt((await km.keyring("tenant")).local_encrypt(b"x"))


async def test_an_applications_own_source_is_scanned_by_its_scanner(tmp_path: Path) -> None:
    async def scanner(use: KeyUse, key_ids: Any, /) -> dict[int, int]:
        return dict.fromkeys(key_ids, 3)

    scan = SourceScan({"warehouse": scanner})
    assert await scan(KeyUse("rows", "default", "app:warehouse"), [7]) == {7: 3}
    with pytest.raises(ConfigurationError, match="key_sources"):
        await scan(KeyUse("rows", "default", "app:other"), [7])


async def test_a_file_source_is_scanned_without_the_applications_help(tmp_path: Path, world: World) -> None:
    async with world.open() as km:
        sealed = km.local_encrypt(b"x")
        (tmp_path / "backup.bin").write_bytes(sealed)
        key_id = km.default.data_key_id(sealed)
    scan = SourceScan({})
    assert await scan(KeyUse("files", "default", f"file:{tmp_path}/*.bin"), [key_id]) == {key_id: 1}
