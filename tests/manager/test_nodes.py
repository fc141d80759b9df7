"""A manager as one of the processes of a store: rotation, use counts, the background task, and children of a fork."""

from __future__ import annotations

import asyncio
import logging
import os
import pickle
from collections.abc import Awaitable, Callable
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
from keystead.manager.manager import KeyManager
from keystead.model import DataKeyState, RotationPolicy
from keystead.ports import KeyUse, NodeRecord
from keystead.providers.local import LocalKMSConfig, LocalKMSProvider
from keystead.stores.memory import MemoryKeyStore
from keystead.testing import FakeKMS
from tests.fakes.clock import FakeClock
from tests.fakes.world import CountingStore, World, polled, session_of

ACTIVE, PRE_ACTIVE = DataKeyState.ACTIVE, DataKeyState.PRE_ACTIVE
TEST_KEY = bytes(range(32))


async def live_nodes(world: World) -> list[NodeRecord]:
    async with world.store.reading() as work:
        return await work.live_nodes()


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(10):
        while not await condition():
            await asyncio.sleep(0.01)


# --- two managers on one store


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


# --- use counts


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
                await session.flush_uses()
        km.local_encrypt(b"12345")
        store.failure = None
        await session.flush_uses()
        assert (await km.get_active_data_key()).messages == 2
        assert (await km.get_active_data_key()).bytes == 10


async def test_counts_taken_while_a_write_fails_are_kept(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.store = store = CountingStore(world.store)
    async with world.open() as km:
        session = await session_of(km)
        key_id = (await km.get_active_data_key()).id
        km.local_encrypt(b"12345")
        real = store._store.transaction

        def fail_after_another_took_counts() -> Any:
            session._uses[key_id] = (3, 30)  # as a second flush does that begins meanwhile and fails first
            raise StoreUnavailableError("away")

        monkeypatch.setattr(store._store, "transaction", fail_after_another_took_counts)
        with pytest.raises(StoreUnavailableError):
            await session.flush_uses()
        monkeypatch.setattr(store._store, "transaction", real)
        await session.flush_uses()
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


# --- the KMS away, or against it


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
                call()
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
        try:
            await km.rotate_data_key()
        except KeyRotationError:
            pass
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


# --- the background task


@pytest.fixture
def held() -> World:
    """An installation whose clock keeps sleepers asleep until the test moves it."""
    return World(FakeClock(instant=False))


async def test_a_background_manager_is_a_node_that_beats_and_polls(held: World) -> None:
    async with held.open(background=True, epoch_max_age_s=30) as km:
        assert len(await live_nodes(held)) == 1
        assert [task.get_name() for task in asyncio.all_tasks()].count("keystead-node") == 1
        async with held.open() as other:
            assert (await other.rotate_data_key()).state is PRE_ACTIVE
            await asyncio.sleep(0.05)

            async def is_promoted() -> bool:
                held.clock.advance(30)
                return (await km.get_active_data_key()).version == 2

            await until(is_promoted)
    assert await live_nodes(held) == []


async def test_a_manager_without_background_is_a_node_only_once_it_polls(world: World) -> None:
    async with world.open() as km:
        assert await live_nodes(world) == []
        await km.run_due()
        assert len(await live_nodes(world)) == 1
    assert await live_nodes(world) == []


@pytest.mark.parametrize("failure", [StoreUnavailableError("away"), ZeroDivisionError("a defect")])
async def test_the_background_task_outlives_a_failing_store(
    held: World, caplog: pytest.LogCaptureFixture, failure: Exception
) -> None:
    held.store = store = CountingStore(held.store)
    async with held.open(background=True) as km:
        km.local_encrypt(b"x")
        await asyncio.sleep(0.05)
        store.failure = failure
        with caplog.at_level(logging.WARNING, "keystead.manager"):

            async def is_noticed() -> bool:
                held.clock.advance(30)
                return "background poll failed" in caplog.text

            await until(is_noticed)
        assert km.local_decrypt(km.local_encrypt(b"x")) == b"x"
        store.failure = None

        async def is_counted() -> bool:
            held.clock.advance(30)
            return (await km.get_active_data_key()).messages == 2

        await until(is_counted)


async def test_a_background_task_that_is_gone_is_started_by_the_next_call(held: World) -> None:
    async with held.open(background=True) as km:
        session = await session_of(km)
        task = session._task
        assert task is not None
        assert (await session_of(km))._task is task
        task.cancel()
        await asyncio.wait({task})
        await km.get_active_data_key()
        assert session._task is not None
        assert not session._task.done()


def test_a_manager_may_move_to_another_event_loop() -> None:
    store = MemoryKeyStore()
    km = KeyManager({"cloud": FakeKMS()}, default_key_id="app", store=store)
    asyncio.run(km.initialize())
    assert km.local_decrypt(km.local_encrypt(b"x")) == b"x"

    async def on_another_loop() -> int:
        info = await km.rotate_data_key(promote="now")
        return info.version

    assert asyncio.run(on_another_loop()) == 2
    asyncio.run(km.close())


# --- children of a fork


def in_child(work: Callable[[], object]) -> Any:
    """Return what ``work`` returns in a child of a fork."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            answer: object = work()
        except BaseException as exc:
            answer = repr(exc)
        os.write(write, pickle.dumps(answer))
        os._exit(0)
    os.close(write)
    with os.fdopen(read, "rb") as pipe:
        answered = pipe.read()
    os.waitpid(child, 0)
    return pickle.loads(answered)


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
@pytest.mark.parametrize("background", [True, False])
def test_a_child_of_a_fork_is_a_node_of_its_own(tmp_path: Path, background: bool) -> None:
    provider = LocalKMSProvider(LocalKMSConfig(master_key=TEST_KEY))
    km = KeyManager({"local": provider}, store=f"sqlite:///{tmp_path}/keys.db", background=background)
    asyncio.run(km.initialize())
    before = km.local_encrypt(b"x")

    async def child() -> tuple[str, list[str], bytes, bytes, bool]:
        sealed = km.local_encrypt(b"child")
        assert km._session is not None
        runs = km._session._task is not None
        opened = await km.decrypt_local(before)
        await (await km.session()).poll()
        async with km._store.reading() as work:
            nodes = [node.node_id for node in await work.live_nodes()]
        name = km._session.surroundings.node.value
        await km.close()
        return name, nodes, sealed, opened, runs

    name, nodes, sealed, opened, runs = in_child(lambda: asyncio.run(child()))
    assert km._session is not None
    assert name in nodes
    assert name != km._session.surroundings.node.value
    assert opened == b"x"
    assert runs is background
    assert sealed[10:26] != km.local_encrypt(b"x")[10:26]
    assert km.local_decrypt(sealed) == b"child"
    asyncio.run(km.close())


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_child_may_use_the_hot_path_without_an_event_loop(tmp_path: Path) -> None:
    provider = LocalKMSProvider(LocalKMSConfig(master_key=TEST_KEY))
    km = KeyManager({"local": provider}, store=f"sqlite:///{tmp_path}/keys.db")
    asyncio.run(km.initialize())
    sealed = in_child(lambda: [km.local_encrypt(b"x"), km.local_encrypt(b"y")])
    assert [km.local_decrypt(one) for one in sealed] == [b"x", b"y"]
    asyncio.run(km.close())


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_manager_that_was_not_started_starts_in_a_child(tmp_path: Path) -> None:
    provider = LocalKMSProvider(LocalKMSConfig(master_key=TEST_KEY))
    km = KeyManager({"local": provider}, store=f"sqlite:///{tmp_path}/keys.db")

    async def child() -> bytes:
        async with km:
            return km.local_decrypt(km.local_encrypt(b"x"))

    assert in_child(lambda: asyncio.run(child())) == b"x"
    asyncio.run(km.close())


# --- declared data sources


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
