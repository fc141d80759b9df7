"""``initialize`` and ``close``: all or nothing, and never twice."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from keystead.errors import (
    AlreadyInitializedError,
    ConfigurationError,
    KeyDecryptionFailError,
    KeyRotationError,
    KeyStateError,
    ProviderAuthError,
    ProviderConnectionError,
    StoreUnavailableError,
    SystemShutdownError,
)
from keystead.manager.manager import KeyManager
from keystead.model import KeyRecord, RotationPolicy, StoreState
from keystead.providers.local.provider import LocalKMSConfig, LocalKMSProvider
from keystead.runtime.clock import SystemClock
from keystead.stores.memory import MemoryKeyStore
from keystead.testing import FakeKMS
from tests.fakes.clock import FakeClock
from tests.fakes.world import CountingStore, World, session_of

TEST_KEY = bytes(range(32))


class Held(CountingStore):
    """A store whose opening waits until it is let go."""

    def __init__(self, store: MemoryKeyStore) -> None:
        super().__init__(store)
        self.let_go = asyncio.Event()
        self.reached = asyncio.Event()

    async def open(self) -> StoreState:
        """Wait, and open the store inside."""
        self.reached.set()
        await self.let_go.wait()
        state: StoreState = await super().open()
        return state


async def live_nodes(world: World) -> int:
    async with world.store.reading() as work:
        return len(await work.live_nodes())


async def test_opening_a_new_store_is_one_kms_call_and_so_is_opening_it_again(world: World) -> None:
    async with world.open() as km:
        await km.keyring("tenant")
    assert world.kms.calls == {"generate_data_key": 1}
    world.kms.calls.clear()
    async with world.open() as km:
        await km.keyring("tenant")
        assert km.hash_field("x") == km.hash_field("x")
    assert world.kms.calls == {"decrypt": 1}


async def test_a_second_initialisation_does_nothing(world: World) -> None:
    async with world.open() as km:
        session = await session_of(km)
        calls = world.calls()
        await km.initialize()
        assert await session_of(km) is session
        assert world.calls() == calls


async def test_initialisations_at_the_same_time_open_one_session(world: World) -> None:
    km = world.manager()
    await asyncio.gather(*(km.initialize() for _ in range(10)))
    assert [row.version for row in await world.rows("default")] == [1]
    assert world.calls() == 1
    await km.close()


async def test_a_configuration_goes_elsewhere(world: World) -> None:
    km = world.manager()
    with pytest.raises(ConfigurationError, match="constructor") as refused:
        await km.initialize({"seed": "x"})
    assert not isinstance(refused.value, AlreadyInitializedError)
    await km.initialize()
    with pytest.raises(AlreadyInitializedError):
        await km.initialize({"seed": "x"})
    await km.close()
    with pytest.raises(SystemShutdownError):
        await km.initialize({"seed": "x"})


async def test_a_store_that_does_not_answer_in_time_is_a_connection_error_and_may_be_asked_again(world: World) -> None:
    world.store = store = Held(MemoryKeyStore(clock=world.clock))
    km = world.manager(initialization_timeout=0.05)
    with pytest.raises(ProviderConnectionError, match=r"initialization_timeout=0\.05") as refused:
        await km.initialize()
    assert refused.value.retryable
    assert not km.is_initialized
    store.let_go.set()
    km._timeout_s = 10
    await km.initialize()
    assert km.local_decrypt(km.local_encrypt(b"x")) == b"x"
    await km.close()


async def test_a_kms_that_does_not_answer_in_time_leaves_nothing_half_made() -> None:
    kms, store = FakeKMS(), MemoryKeyStore()
    kms.delay_s = 30
    km = KeyManager({"cloud": kms}, default_key_id="app", store=store, initialization_timeout=0.5)
    with pytest.raises(ProviderConnectionError):
        await km.initialize()
    async with store.reading() as work:
        assert await work.keys() == []
        assert await work.live_nodes() == []
    kms.heal()
    km._timeout_s = 10
    await km.initialize()
    assert km.local_decrypt(km.local_encrypt(b"x")) == b"x"
    await km.close()


@pytest.mark.parametrize("failure", [ProviderConnectionError("away"), ProviderAuthError("denied")])
async def test_a_start_that_the_kms_failed_may_be_repeated(world: World, failure: Exception) -> None:
    km = world.manager()
    world.kms.fail_always(failure)
    with pytest.raises(type(failure)):
        await km.initialize()
    assert await world.rows() == []
    world.kms.heal()
    await km.initialize()
    assert km.local_decrypt(km.local_encrypt(b"x")) == b"x"
    await km.close()


async def test_a_start_that_the_store_failed_may_be_repeated(world: World) -> None:
    world.store = store = CountingStore(world.store)
    km = world.manager()
    store.failure = StoreUnavailableError("away")
    with pytest.raises(StoreUnavailableError):
        await km.initialize()
    store.failure = None
    await km.initialize()
    assert km.is_initialized
    await km.close()


async def test_a_disabled_kek_opens_nothing(world: World) -> None:
    async with world.open():
        pass
    world.kms.disable()
    km = world.manager()
    with pytest.raises(KeyStateError):
        await km.initialize()
    await km.close()


async def test_a_failed_start_leaves_no_node_and_no_task(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The last thing a start does is to read what changed: by then it beats already."""
    world.clock = FakeClock(instant=False)
    km = world.manager(background=True)

    async def fail(self: object) -> bool:
        raise StoreUnavailableError("away")

    monkeypatch.setattr("keystead.lifecycle.live_keyrings.LiveKeyrings.refresh", fail)
    with pytest.raises(StoreUnavailableError):
        await km.initialize()
    assert await live_nodes(world) == 0
    assert [task for task in asyncio.all_tasks() if task.get_name() == "keystead-node"] == []
    monkeypatch.undo()
    await km.initialize()
    assert await live_nodes(world) == 1
    assert km.local_decrypt(km.local_encrypt(b"x")) == b"x"
    await km.close()
    assert await live_nodes(world) == 0


async def test_the_wrong_kek_changes_nothing(tmp_path: Path) -> None:
    def manager(key: bytes) -> KeyManager:
        provider = LocalKMSProvider(LocalKMSConfig(master_key=key))
        return KeyManager({"local": provider}, store=f"sqlite:///{tmp_path}/keys.db", background=False)

    async def rows(km: KeyManager) -> list[KeyRecord]:
        async with km._store.reading() as work:
            return await work.keys()

    async with manager(TEST_KEY) as km:
        sealed = km.local_encrypt(b"x")
    wrong = manager(bytes(32))
    before = await rows(wrong)
    with pytest.raises(KeyDecryptionFailError):
        await wrong.initialize()
    assert not wrong.is_initialized
    assert await rows(wrong) == before
    await wrong.close()
    async with manager(TEST_KEY) as km:
        assert km.local_decrypt(sealed) == b"x"


async def test_a_restart_reads_everything_without_io(world: World) -> None:
    async with world.open() as km:
        sealed = [km.local_encrypt(b"0")]
        for number in range(1, 4):
            await km.rotate_data_key()
            sealed.append(km.local_encrypt(b"%d" % number))
    async with world.open() as km:
        assert [km.local_decrypt(one) for one in sealed] == [b"0", b"1", b"2", b"3"]


async def test_a_start_cancelled_by_its_caller_may_be_repeated(world: World) -> None:
    world.store = store = Held(MemoryKeyStore(clock=world.clock))
    km = world.manager()
    starting = asyncio.create_task(km.initialize())
    await store.reached.wait()
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting
    assert not km.is_initialized
    store.let_go.set()
    await km.initialize()
    assert km.is_initialized
    await km.close()


async def test_a_manager_closed_while_it_starts_stays_closed(world: World) -> None:
    world.store = store = Held(MemoryKeyStore(clock=world.clock))
    km = world.manager()
    starting = asyncio.create_task(km.initialize())
    await store.reached.wait()
    await km.close()
    store.let_go.set()
    with pytest.raises(SystemShutdownError):
        await starting
    assert not km.is_initialized
    with pytest.raises(SystemShutdownError):
        km.local_encrypt(b"x")


async def test_closing_again_does_nothing(world: World) -> None:
    km = world.manager()
    await km.initialize()
    await km.close()
    writes = CountingStore(world.store)
    await km.close()
    assert writes.writes == 0
    session = km._session
    assert session is not None
    await session.close()


async def test_a_manager_that_never_started_closes(world: World) -> None:
    km = world.manager()
    await km.close()
    await km.close()
    assert world.calls() == 0


async def test_closing_wipes_the_keys(world: World) -> None:
    async with world.open() as km:
        tenant = await km.keyring("tenant")
        held = [ring.snapshot.active_key for ring in (await session_of(km)).live.rings()]
        assert tenant.ring in (await session_of(km)).live.rings()
    assert len(held) == 4
    assert all(key is not None and not any(key.key) for key in held)


async def test_a_given_provider_and_a_given_store_stay_open_and_made_ones_are_closed(
    world: World, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    closed: list[str] = []

    def noting(name: str) -> Callable[[object], Awaitable[None]]:
        async def aclose(self: object) -> None:
            closed.append(name)

        return aclose

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(LocalKMSProvider, "aclose", noting("provider"))
    monkeypatch.setattr(MemoryKeyStore, "aclose", noting("store"))
    async with world.open():
        pass
    assert (world.kms.calls["aclose"], closed) == (0, [])
    async with KeyManager.open("local:", store="memory://", background=False):
        pass
    assert closed == ["provider", "store"]


async def test_a_provider_without_anything_to_close_is_left_alone(world: World) -> None:
    km = world.manager()
    km._owned.append(Plain())  # type: ignore[arg-type]
    await km.close()
    assert km._is_shut_down


class Plain:
    """A provider that holds nothing."""


async def test_closing_while_the_store_is_away_still_wipes(world: World) -> None:
    world.store = store = CountingStore(world.store)
    km = world.manager()
    await km.initialize()
    km.local_encrypt(b"x")
    store.failure = StoreUnavailableError("away")
    await km.close()
    with pytest.raises(SystemShutdownError):
        km.local_encrypt(b"x")


async def test_closing_while_a_rotation_runs_ends_both(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    km = world.manager(rotation_policy=RotationPolicy())
    await km.initialize()
    rotation = (await session_of(km)).lifecycle.rotation
    reached, let_go = asyncio.Event(), asyncio.Event()
    add = rotation._add_version

    async def slowly(*arguments: object, **options: object) -> object:
        reached.set()
        await let_go.wait()
        return await add(*arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(rotation, "_add_version", slowly)
    rotating = asyncio.create_task(km.rotate_data_key())
    await reached.wait()
    await km.close()
    let_go.set()
    with pytest.raises(KeyRotationError, match="closed"):
        await rotating
    assert [row.version for row in await world.rows("default")] == [1]
    async with world.open() as again:
        assert (await again.rotate_data_key()).is_active


async def test_a_background_task_in_mid_rotation_is_stopped_by_close(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.clock = FakeClock(instant=False)
    reached = asyncio.Event()

    async def for_ever(self: object) -> int:
        reached.set()
        await asyncio.Event().wait()
        return 0

    monkeypatch.setattr("keystead.lifecycle.maintenance.Maintenance.rotate_due", for_ever)
    km = world.manager(background=True)
    await km.initialize()
    async with asyncio.timeout(60):
        await reached.wait()
        await km.close()
    assert [task for task in asyncio.all_tasks() if task.get_name() == "keystead-node"] == []
    async with world.store.transaction() as work:
        assert await work.claim_lease("keystead.rotate", "another", 1000) is not None


async def test_what_is_being_encrypted_when_it_closes_ends_well(world: World) -> None:
    """A thread in the middle of a call keeps the cipher that it holds."""
    km = world.manager()
    await km.initialize()
    sealed: list[bytes] = []
    stop, begun = threading.Event(), threading.Event()

    def work() -> None:
        while not stop.is_set():
            try:
                sealed.append(km.local_encrypt(b"saturn" * 1000))
                begun.set()
            except SystemShutdownError:
                return

    worker = asyncio.create_task(asyncio.to_thread(work))
    await asyncio.to_thread(begun.wait)
    await km.close()
    stop.set()
    await worker
    async with world.open() as again:
        assert {again.local_decrypt(one) for one in sealed} == {b"saturn" * 1000}


def test_the_real_clock_is_used_where_none_is_given() -> None:
    assert isinstance(KeyManager({"a": FakeKMS()})._clock, SystemClock)
