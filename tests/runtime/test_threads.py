"""A few threads for what takes a core: no more at a time, in turn, and after a fork as well."""

from __future__ import annotations

import asyncio
import gc
import os
import threading
import time

import pytest

from keystead.errors import KMSError
from keystead.runtime.off_loop import Threads


async def test_no_more_run_at_a_time_than_there_are_threads_and_first_come_is_first_served() -> None:
    threads, begun, running, most = Threads("tests", 2), list[int](), 0, 0
    lock = threading.Lock()

    def work(number: int) -> str:
        nonlocal running, most
        with lock:
            begun.append(number)
            running += 1
            most = max(most, running)
        time.sleep(0.005)
        with lock:
            running -= 1
        return threading.current_thread().name

    names = await asyncio.gather(*(threads.run(lambda number=number: work(number)) for number in range(12)))  # type: ignore[misc]
    assert most == 2
    assert begun == sorted(begun)
    assert len(set(names)) == 2
    assert all(name.startswith("tests") for name in names)


async def test_what_it_raises_is_raised() -> None:
    def fail() -> None:
        raise KMSError("no")

    with pytest.raises(KMSError, match="no"):
        await Threads("tests", 1).run(fail)


async def test_where_no_thread_is_to_be_had_it_is_done_here(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread at interpreter shutdown")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    assert await Threads("tests", 1).run(threading.get_ident) == threading.get_ident()


async def test_what_nobody_waits_for_any_more_is_not_begun() -> None:
    threads, begins, ends, made = Threads("tests", 1), threading.Event(), threading.Event(), list[int]()

    def hold() -> bool:
        begins.set()
        return ends.wait(10)

    first = asyncio.ensure_future(threads.run(hold))
    await asyncio.to_thread(begins.wait, 10)
    second = asyncio.ensure_future(threads.run(lambda: made.append(1)))
    await asyncio.sleep(0)
    second.cancel()
    await asyncio.wait({second})
    ends.set()
    assert await first
    assert await threads.run(lambda: len(made)) == 0


async def test_threads_end_with_what_they_were_begun_for() -> None:
    threads = Threads("these", 2)
    await asyncio.gather(*(threads.run(threading.get_ident) for _ in range(4)))
    mine = [each for each in threading.enumerate() if each.name.startswith("these")]
    assert mine
    del threads
    gc.collect()
    for each in mine:
        await asyncio.to_thread(each.join, 10)
        assert not each.is_alive()


def test_a_child_of_a_fork_has_threads_of_its_own() -> None:
    threads = Threads("tests", 1)
    asyncio.run(threads.run(os.getpid))
    child = os.fork()
    if child == 0:
        os._exit(0 if asyncio.run(asyncio.wait_for(threads.run(os.getpid), 10)) == os.getpid() else 1)
    assert os.waitpid(child, 0)[1] == 0
