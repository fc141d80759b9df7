"""The background task of a manager, and what a child of a fork makes of it."""

from __future__ import annotations

import asyncio
import logging
import os
import pickle
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from keystead.errors import (
    StoreUnavailableError,
)
from keystead.manager.manager import KeyManager
from keystead.model import DataKeyState
from keystead.ports import NodeRecord
from keystead.providers.local.provider import LocalKMSConfig, LocalKMSProvider
from keystead.stores.memory import MemoryKeyStore
from keystead.testing import FakeKMS
from tests.fakes.clock import FakeClock
from tests.fakes.world import CountingStore, World, session_of

ACTIVE, PRE_ACTIVE = DataKeyState.ACTIVE, DataKeyState.PRE_ACTIVE
TEST_KEY = bytes(range(32))


async def live_nodes(world: World) -> list[NodeRecord]:
    async with world.store.reading() as work:
        return await work.live_nodes()


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(60):
        while not await condition():  # noqa: ASYNC110 -- the condition moves the clock
            await asyncio.sleep(0.01)


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
                held.clock.wake(30)
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
                held.clock.wake(30)
                return "background poll failed" in caplog.text

            await until(is_noticed)
        assert km.local_decrypt(km.local_encrypt(b"x")) == b"x"
        store.failure = None

        async def is_counted() -> bool:
            held.clock.wake(30)
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


def test_on_another_event_loop_the_hot_path_alone_starts_the_background_task_again() -> None:
    km = KeyManager({"cloud": FakeKMS()}, default_key_id="app", store=MemoryKeyStore())
    asyncio.run(km.initialize())

    async def on_another_loop() -> bool:
        km.default.local_encrypt(b"x")
        while km.local_encrypt(b"x"):
            # A pool of nonces at a time: the gate is asked for the next one.
            assert km._session is not None
            if km._session._task is not None and km._session._task.get_loop() is asyncio.get_running_loop():
                return not km._session._task.done()
        return False

    assert asyncio.run(on_another_loop())
    asyncio.run(km.close())


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
def test_a_child_of_a_fork_that_uses_another_keyring_alone_is_a_node_too(tmp_path: Path) -> None:
    provider = LocalKMSProvider(LocalKMSConfig(master_key=TEST_KEY))
    km = KeyManager({"local": provider}, store=f"sqlite:///{tmp_path}/keys.db")

    async def parent() -> Any:
        await km.initialize()
        return await km.keyring("people")

    people = asyncio.run(parent())

    async def child() -> bool:
        people.local_encrypt(b"child")
        assert km._session is not None
        runs = km._session._task is not None
        await km.close()
        return runs

    assert in_child(lambda: asyncio.run(child())) is True
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
