"""Threads for SDKs that block."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import os
import signal
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable

import pytest

from keystead.errors import ProviderConnectionError, SystemShutdownError
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
    for _ in range(1000):
        if len(running) == 2:
            break
        await asyncio.sleep(0.01)
    await asyncio.sleep(0.05)
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


async def test_a_call_that_waits_for_a_thread_when_the_pool_is_closed_ends_as_an_error_and_not_as_cancelled() -> None:
    workers, begun, gate = Workers("test", threads=1), threading.Event(), threading.Event()

    def call() -> bool:
        begun.set()
        return gate.wait(10)

    running = asyncio.create_task(workers.run(call))
    waiting = asyncio.create_task(workers.run(lambda: None))
    await asyncio.to_thread(begun.wait, 10)
    workers.close()
    gate.set()
    assert await running
    with pytest.raises(SystemShutdownError):
        await waiting


async def test_a_call_that_is_cancelled_while_the_pool_is_closed_is_cancelled() -> None:
    workers, begun, gate = Workers("test", threads=1), threading.Event(), threading.Event()

    def call() -> bool:
        begun.set()
        return gate.wait(10)

    running = asyncio.create_task(workers.run(call))
    waiting = asyncio.create_task(workers.run(lambda: None))
    await asyncio.to_thread(begun.wait, 10)
    waiting.cancel()
    workers.close()
    gate.set()
    await running
    with pytest.raises(asyncio.CancelledError):
        await waiting


async def test_the_loop_starts_one_thread_and_that_one_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    here, started_here, start = threading.get_ident(), list[str](), threading.Thread.start

    def note(thread: threading.Thread) -> None:
        if threading.get_ident() == here:
            started_here.append(thread.name)
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", note)
    workers, together = Workers("test", threads=8), threading.Barrier(8)
    await asyncio.gather(*(workers.run(lambda: together.wait(10)) for _ in range(8)))
    assert len(started_here) == 1
    workers.close()


async def test_a_pool_that_is_closed_while_its_threads_start_lets_go_of_all_of_them() -> None:
    for _ in range(20):
        workers = Workers("test-closing", threads=8)
        call = asyncio.create_task(workers.run(lambda: None))
        await asyncio.sleep(0)
        workers.close()
        await asyncio.gather(call, return_exceptions=True)
    left = [thread for thread in threading.enumerate() if "test-closing" in thread.name]
    for thread in left:
        await asyncio.to_thread(thread.join, 10)
    assert not any(thread.is_alive() for thread in left)


async def test_the_thread_that_was_busy_last_takes_the_next_call() -> None:
    workers, together, names = Workers("test", threads=4), threading.Barrier(4), set[str]()
    await asyncio.gather(*(workers.run(lambda: together.wait(10)) for _ in range(4)))
    for _ in range(20):
        names.add(str(await workers.run(threading.get_ident)))
    assert len(names) == 1
    workers.close()


async def test_the_threads_of_a_pool_that_nobody_has_any_more_end() -> None:
    workers = Workers("test-forgotten", threads=3)
    await workers.run(lambda: None)
    del workers
    gc.collect()
    for thread in [each for each in threading.enumerate() if "test-forgotten" in each.name]:
        await asyncio.to_thread(thread.join, 10)
        assert not thread.is_alive()


async def test_where_no_thread_can_be_started_the_call_fails_and_is_not_made_later(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    workers, made = Workers("test", threads=2), list[str]()
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", _no_thread)
        with pytest.raises(ProviderConnectionError, match="limit of tasks"):
            await workers.run(lambda: made.append("first"))
    await workers.run(lambda: made.append("second"))
    assert made == ["second"]
    workers.close()


async def test_where_one_thread_only_can_be_started_it_makes_all_the_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    workers, start, started = Workers("test", threads=4), threading.Thread.start, list[str]()

    def start_one(thread: threading.Thread) -> None:
        if started:
            _no_thread(thread)
        started.append(thread.name)
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", start_one)
    names = await asyncio.gather(*(workers.run(threading.get_ident) for _ in range(4)))
    assert len(set(names)) == 1
    workers.close()


def _no_thread(thread: threading.Thread) -> None:
    raise RuntimeError("can't start new thread")


def run_program(program: str) -> subprocess.CompletedProcess[str]:
    program = f"import asyncio, threading, time\nfrom keystead.providers import workers as pool\n{program}"
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)


LEAVES_A_CALL = """
workers, begun = pool.Workers("test"), threading.Event()
def call():
    begun.set()
    time.sleep({seconds})
    print("given back", flush=True)
async def main():
    left = asyncio.ensure_future(workers.run(call))
    await asyncio.to_thread(begun.wait)
    workers.close()
    left.cancel()
asyncio.run(main())
"""


def test_the_interpreters_exit_waits_for_the_call_under_way() -> None:
    ended = run_program(LEAVES_A_CALL.format(seconds=0.2))
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "given back\n", "")


def test_a_call_that_hangs_does_not_keep_the_process_alive() -> None:
    ended = run_program(f"pool.EXIT_WAIT_S = 0.05\n{LEAVES_A_CALL.format(seconds=600)}")
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "")


ABANDONED = """
import os, signal, sys
workers = pool.Workers("test")
asyncio.run(workers.run(lambda: None))
shared = workers._pool
del workers
held = threading.Event()
def hold():
    with shared._lock:
        held.set()
        time.sleep(2)
threading.Thread(target=hold, daemon=True).start()
held.wait()
child = os.fork()
if child == 0:
    signal.alarm(20)
    sys.exit(7)
_, status = os.waitpid(child, 0)
print(os.waitstatus_to_exitcode(status))
"""


def test_a_childs_exit_does_not_wait_for_a_thread_whose_pool_nobody_has_any_more() -> None:
    ended = run_program(ABANDONED)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "7\n", "")


async def test_a_pool_whose_threads_have_ended_is_let_go() -> None:
    workers = Workers("test-let-go")
    await workers.run(lambda: None)
    seen = weakref.ref(workers._pool)
    workers.close()
    for thread in [each for each in threading.enumerate() if "test-let-go" in each.name]:
        await asyncio.to_thread(thread.join, 10)
    del workers
    gc.collect()
    assert seen() is None


def test_two_loops_share_one_pool() -> None:
    workers, names = Workers("test-shared", threads=2), set[str]()

    async def work() -> None:
        for _ in range(20):
            names.add(await workers.run(lambda: threading.current_thread().name))

    loops = [threading.Thread(target=lambda: asyncio.run(work())) for _ in range(2)]
    for loop in loops:
        loop.start()
    for loop in loops:
        loop.join(30)
    assert len(names) <= 2
    workers.close()


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


async def test_in_a_child_of_a_fork_a_closed_pool_is_closed_and_no_lock_of_the_parents_is_waited_for() -> None:
    workers = Workers("test")
    await workers.run(lambda: None)
    workers.close()
    with workers._pool._lock:
        # By another thread: whoever holds the lock is not there in the child.
        status = await asyncio.to_thread(_ended, lambda: _end_of(workers))
    assert status == 7


def _end_of(workers: Workers) -> int:
    refused = 0
    try:
        asyncio.new_event_loop().run_until_complete(workers.run(lambda: 1))
    except SystemShutdownError:
        refused = 7
    workers.close()
    return refused


def _ended(child_does: Callable[[], int]) -> int:
    child = os.fork()
    if child == 0:
        signal.alarm(10)
        os._exit(child_does())
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status)
