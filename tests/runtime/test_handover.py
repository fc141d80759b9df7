"""Calls that another thread makes for an event loop."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import threading
import weakref

import pytest

from keystead.runtime.handover import Handover


def make(handover: Handover[int]) -> None:
    """Do what the other thread does."""
    if handover.make():
        handover.deliver()


async def test_the_outcome_comes_back_to_the_loop() -> None:
    handover = Handover(threading.get_ident)
    other = threading.Thread(target=make, args=(handover,))
    other.start()
    assert await handover.outcome() == other.ident


@pytest.mark.parametrize("failure", [KeyError("inside"), KeyboardInterrupt()])
async def test_what_the_call_raised_is_raised(failure: BaseException) -> None:
    def fails() -> int:
        raise failure

    handover = Handover(fails)
    threading.Thread(target=make, args=(handover,)).start()
    with pytest.raises(type(failure)) as caught:
        await handover.outcome()
    assert caught.value is failure


async def test_a_call_that_says_stop_iteration_ends_as_an_error() -> None:
    handover = Handover(lambda: next(iter(list[int]())))
    threading.Thread(target=make, args=(handover,)).start()
    with pytest.raises(RuntimeError, match="StopIteration"):
        await asyncio.wait_for(handover.outcome(), 10)


async def test_the_context_is_the_callers() -> None:
    name = contextvars.ContextVar("name", default=1)
    name.set(2)
    handover = Handover(name.get)
    threading.Thread(target=make, args=(handover,)).start()
    assert await handover.outcome() == 2


async def test_a_call_that_nobody_waits_for_is_not_made() -> None:
    handover = Handover(lambda: 1)
    handover.future.cancel()
    assert not handover.make()
    assert not handover.has_begun


async def test_a_call_that_was_refused_is_not_made_and_fails() -> None:
    handover = Handover(lambda: 1)
    handover.refuse(ValueError("closed"))
    with pytest.raises(ValueError, match="closed"):
        await handover.outcome()
    assert not handover.make()


def test_an_outcome_that_comes_after_the_loop_was_closed_is_nobodys() -> None:
    async def begin() -> Handover[int]:
        return Handover(lambda: 1)

    handover = asyncio.run(begin())
    assert handover.make()
    handover.deliver()


class Result:
    """Something that can be seen to be let go."""


async def test_what_came_too_late_is_not_kept() -> None:
    made = [Result()]
    seen = weakref.ref(made[0])
    handover = Handover(made.pop)
    assert handover.make()
    handover.future.cancel()
    handover.deliver()
    await asyncio.sleep(0.01)
    assert seen() is None


async def test_a_failure_is_let_go_by_whoever_caught_it() -> None:
    result = Result()
    seen = weakref.ref(result)

    def fails(held: Result) -> int:
        raise KeyError

    handover = Handover(lambda held=result: fails(held))  # type: ignore[misc]
    del result
    handover.make()
    handover.deliver()
    gc.disable()
    try:
        with pytest.raises(KeyError):
            await handover.outcome()
        del handover
        assert seen() is None
    finally:
        gc.enable()


async def test_an_outcome_in_time_is_there() -> None:
    handover = Handover(lambda: 1)
    waiting = asyncio.create_task(handover.arrives(60))
    handover.make()
    await asyncio.to_thread(handover.deliver)
    assert await waiting
    assert handover.result() == 1


async def test_what_begins_after_its_time_is_never_made() -> None:
    handover = Handover(pytest.fail)
    assert not await handover.arrives(0.01)
    assert not handover.make()


async def test_an_outcome_that_comes_after_its_time_is_let_go() -> None:
    result = Result()
    seen = weakref.ref(result)
    handover = Handover([result].pop)
    del result
    handover.make()
    assert not await handover.arrives(0.01)
    assert seen() is not None
    handover.deliver()
    await asyncio.sleep(0)
    gc.collect()
    assert seen() is None
    assert not handover.has_arrived


async def test_a_wait_for_an_outcome_can_be_cancelled() -> None:
    handover = Handover(lambda: 1)
    waiting = asyncio.create_task(handover.arrives(60))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert not handover.make()
