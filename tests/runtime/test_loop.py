"""The background loop that synchronous callers share."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator

import pytest

from keystead.errors import InvalidInputError, SystemShutdownError
from keystead.runtime.loop import BackgroundLoop


@pytest.fixture
def loop() -> Iterator[BackgroundLoop]:
    """A loop of the test's own."""
    made = BackgroundLoop()
    yield made
    made.stop()


async def thread_name() -> str:
    return threading.current_thread().name


def test_a_result_comes_back_from_the_loops_own_thread(loop: BackgroundLoop) -> None:
    assert loop.run(thread_name()) == "keystead-loop"


def test_what_a_call_raises_its_caller_gets(loop: BackgroundLoop) -> None:
    async def fail() -> None:
        raise LookupError("not there")

    with pytest.raises(LookupError, match="not there"):
        loop.run(fail())


def test_waiting_on_the_loop_for_the_loop_is_refused(loop: BackgroundLoop) -> None:
    async def nested() -> str:
        return loop.run(thread_name())

    with pytest.raises(InvalidInputError, match="background loop"):
        loop.run(nested())


def test_what_is_submitted_runs_without_being_waited_for(loop: BackgroundLoop) -> None:
    ran = threading.Event()

    async def note() -> None:
        ran.set()

    loop.submit(note())
    assert ran.wait(10)


def test_stopping_closes_what_asked_for_it_and_cancels_the_rest(loop: BackgroundLoop) -> None:
    events: list[str] = []
    started = threading.Event()

    class Resource:
        async def close(self) -> None:
            events.append("closed")

    async def linger() -> None:
        started.set()
        try:
            await asyncio.sleep(3600)
        finally:
            events.append("cancelled")

    kept, dropped = Resource(), Resource()
    loop.at_stop(kept.close)
    loop.at_stop(dropped.close)
    del dropped
    loop.submit(linger())
    assert started.wait(10)
    loop.stop()
    assert events == ["closed", "cancelled"]


def test_a_resource_that_fails_to_close_does_not_stop_the_others(loop: BackgroundLoop) -> None:
    closed: list[str] = []

    class Broken:
        async def close(self) -> None:
            raise OSError("broken")

    class Sound:
        async def close(self) -> None:
            closed.append("sound")

    broken, sound = Broken(), Sound()
    loop.at_stop(broken.close)
    loop.at_stop(sound.close)
    loop.run(thread_name())
    loop.stop()
    assert closed == ["sound"]


def test_a_call_that_the_stop_cuts_off_says_so(loop: BackgroundLoop) -> None:
    started = threading.Event()
    caught: list[BaseException] = []

    async def linger() -> None:
        started.set()
        await asyncio.sleep(3600)

    def call() -> None:
        try:
            loop.run(linger())
        except SystemShutdownError as exc:
            caught.append(exc)

    caller = threading.Thread(target=call)
    caller.start()
    assert started.wait(10)
    loop.stop()
    caller.join(10)
    assert len(caught) == 1


def test_once_the_interpreter_exits_no_other_loop_is_made(loop: BackgroundLoop) -> None:
    loop.run(thread_name())
    loop._exit()
    for call in (loop.run, loop.submit):
        with pytest.raises(SystemShutdownError, match="interpreter exits"):
            call(thread_name())


def test_after_a_stop_the_next_call_makes_another_loop(loop: BackgroundLoop) -> None:
    loop.run(thread_name())
    loop.stop()
    loop.stop()
    assert loop.run(thread_name()) == "keystead-loop"
