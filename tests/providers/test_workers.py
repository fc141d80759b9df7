"""Threads for SDKs that block."""

from __future__ import annotations

import asyncio
import contextvars
import os
import threading

import pytest

from keystead.errors import SystemShutdownError
from keystead.providers.workers import Workers


async def test_a_call_is_made_off_the_loop() -> None:
    workers = Workers("test")
    assert await workers.run(threading.get_ident) != threading.get_ident()
    workers.close()


async def test_no_more_threads_are_used_than_allowed() -> None:
    workers, gate, running = Workers("test", threads=2), threading.Event(), list[int]()

    def call() -> int:
        running.append(1)
        gate.wait(10)
        return len(running)

    calls = [asyncio.create_task(workers.run(call)) for _ in range(5)]
    await asyncio.sleep(0.1)
    assert len(running) == 2
    gate.set()
    await asyncio.gather(*calls)
    workers.close()


async def test_a_call_that_was_cancelled_before_it_began_is_never_made() -> None:
    workers, gate, made = Workers("test", threads=1), threading.Event(), list[str]()
    first = asyncio.create_task(workers.run(lambda: gate.wait(10)))
    second = asyncio.create_task(workers.run(lambda: made.append("second")))
    await asyncio.sleep(0.05)
    second.cancel()
    await asyncio.sleep(0)
    gate.set()
    await first
    await workers.run(lambda: made.append("third"))
    assert made == ["third"]
    workers.close()


async def test_the_callers_context_is_the_calls_own() -> None:
    name = contextvars.ContextVar("name", default="nobody")
    name.set("caller")
    workers = Workers("test")
    assert await workers.run(name.get) == "caller"
    workers.close()


async def test_a_closed_pool_takes_no_calls() -> None:
    workers = Workers("test")
    workers.close()
    workers.close()
    with pytest.raises(SystemShutdownError):
        await workers.run(lambda: None)


async def test_a_child_of_a_fork_makes_its_own_threads() -> None:
    workers = Workers("test")
    await workers.run(lambda: None)
    child = os.fork()
    if child == 0:
        answer = asyncio.new_event_loop().run_until_complete(asyncio.wait_for(workers.run(lambda: 7), 10))
        os._exit(answer)
    _, status = await asyncio.to_thread(os.waitpid, child, 0)
    assert os.waitstatus_to_exitcode(status) == 7
    workers.close()
