"""One client for each event loop."""

from __future__ import annotations

import asyncio
import gc
import os
import threading
import weakref

import pytest

from keystead.runtime.per_loop import PerLoop


class Client:
    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.closed_in: asyncio.AbstractEventLoop | None = None

    async def close(self) -> None:
        self.closed_in = asyncio.get_running_loop()


async def make() -> Client:
    await asyncio.sleep(0)
    return Client()


async def test_it_is_made_once_however_many_ask() -> None:
    clients = PerLoop(make, Client.close)
    first, *others = await asyncio.gather(*(clients.get() for _ in range(10)))
    assert all(other is first for other in others)


async def test_another_loop_has_another() -> None:
    clients = PerLoop(make, Client.close)
    here = await clients.get()
    there = await asyncio.to_thread(lambda: asyncio.run(clients.get()))
    assert there is not here
    assert await clients.get() is here


async def test_a_failure_is_not_kept() -> None:
    attempts = 0

    async def fail_once() -> Client:
        nonlocal attempts
        attempts += 1
        if attempts == 1:
            raise OSError("not yet")
        return await make()

    clients = PerLoop(fail_once, Client.close)
    with pytest.raises(OSError, match="not yet"):
        await clients.get()
    assert await clients.get() is await clients.get()


async def test_a_caller_that_is_cancelled_leaves_the_others_theirs() -> None:
    gate = asyncio.Event()

    async def slow() -> Client:
        await gate.wait()
        return await make()

    clients = PerLoop(slow, Client.close)
    first, second = asyncio.create_task(clients.get()), asyncio.create_task(clients.get())
    await asyncio.sleep(0)
    first.cancel()
    await asyncio.sleep(0)
    gate.set()
    assert isinstance(await second, Client)


async def test_closing_closes_each_in_its_own_loop() -> None:
    clients = PerLoop(make, Client.close)
    here = await clients.get()
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        there = await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(clients.get(), loop))
        await clients.aclose()
        for _ in range(100):
            if there.closed_in is not None:
                break
            await asyncio.sleep(0.01)
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
    assert here.closed_in is here.loop
    assert there.closed_in is there.loop


async def test_one_that_another_loop_is_still_making_is_closed_when_it_is_made() -> None:
    is_asked_for, may_go_on, closed = threading.Event(), threading.Event(), threading.Event()

    async def slow() -> Client:
        is_asked_for.set()
        await asyncio.to_thread(may_go_on.wait, 10)
        return Client()

    async def close(client: Client) -> None:
        closed.set()

    async def elsewhere() -> None:
        await clients.get()
        await asyncio.to_thread(closed.wait, 1)

    clients = PerLoop(slow, close)
    thread = threading.Thread(target=lambda: asyncio.run(elsewhere()))
    thread.start()
    await asyncio.to_thread(is_asked_for.wait, 10)
    await clients.aclose()
    may_go_on.set()
    await asyncio.to_thread(thread.join, 10)
    assert closed.is_set()


async def test_after_closing_another_is_made() -> None:
    clients = PerLoop(make, Client.close)
    first = await clients.get()
    await clients.aclose()
    await clients.aclose()
    assert await clients.get() is not first


def test_what_a_closed_loop_had_is_let_go() -> None:
    clients = PerLoop(make, Client.close)
    first = weakref.ref(asyncio.run(clients.get()))
    asyncio.run(clients.get())
    gc.collect()
    assert first() is None


def test_a_child_of_a_fork_is_given_what_it_must_not_free() -> None:
    abandoned: list[Client] = []
    clients = PerLoop(make, Client.close, abandon=abandoned.append)
    inherited = asyncio.run(clients.get())
    child = os.fork()
    if child == 0:
        own = asyncio.run(clients.get())
        os._exit(0 if abandoned == [inherited] and own is not inherited else 1)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    assert abandoned == []
