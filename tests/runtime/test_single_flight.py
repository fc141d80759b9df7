from __future__ import annotations

import asyncio
from typing import NoReturn

import pytest

from keystead.runtime.single_flight import SingleFlight


class Call:
    """A call that waits for ``gate`` and counts how often it began and was cancelled."""

    def __init__(self, result: str = "result") -> None:
        self.gate = asyncio.Event()
        self.started = 0
        self.cancelled = 0
        self._result = result

    async def __call__(self) -> str:
        self.started += 1
        try:
            await self.gate.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        return self._result


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_those_who_ask_together_share_one_call() -> None:
    flights, call = SingleFlight[str](), Call()
    askers = [asyncio.create_task(flights.run("key", call)) for _ in range(100)]
    await settle()
    call.gate.set()
    assert await asyncio.gather(*askers) == ["result"] * 100
    assert (call.started, len(flights)) == (1, 0)


async def test_different_keys_do_not_share() -> None:
    flights, first, second = SingleFlight[str](), Call("first"), Call("second")
    first.gate.set()
    second.gate.set()
    assert set(await asyncio.gather(flights.run(1, first), flights.run(2, second))) == {"first", "second"}


async def test_all_get_the_failure_and_the_next_tries_again() -> None:
    flights = SingleFlight[str]()

    async def fail() -> NoReturn:
        await asyncio.sleep(0)
        raise ValueError

    failures = await asyncio.gather(*(flights.run("key", fail) for _ in range(3)), return_exceptions=True)
    assert [type(failure) for failure in failures] == [ValueError] * 3
    call = Call()
    call.gate.set()
    assert await flights.run("key", call) == "result"


async def test_a_leader_that_is_cancelled_leaves_the_others_their_result() -> None:
    flights, call = SingleFlight[str](), Call()
    leader = asyncio.create_task(flights.run("key", call))
    await settle()
    follower = asyncio.create_task(flights.run("key", call))
    await settle()
    leader.cancel()
    await settle()
    call.gate.set()
    assert (await follower, call.started, call.cancelled) == ("result", 1, 0)


async def test_when_the_last_has_left_the_call_is_cancelled() -> None:
    flights, call = SingleFlight[str](), Call()
    askers = [asyncio.create_task(flights.run("key", call)) for _ in range(2)]
    await settle()
    for asker in askers:
        asker.cancel()
    await settle()
    assert (call.cancelled, len(flights)) == (1, 0)


async def test_whoever_asks_after_the_last_has_left_gets_a_call_of_their_own() -> None:
    flights, abandoned, fresh = SingleFlight[str](), Call(), Call()
    asker = asyncio.create_task(flights.run("key", abandoned))
    await settle()
    asker.cancel()
    fresh.gate.set()
    with pytest.raises(asyncio.CancelledError):
        await asker
    assert await flights.run("key", fresh) == "result"


def test_event_loops_do_not_share_a_flight() -> None:
    flights = SingleFlight[str]()

    async def leave_in_flight() -> None:
        call = Call()
        asyncio.create_task(flights.run("key", call))  # noqa: RUF006
        await settle()

    async def ask() -> str:
        call = Call()
        call.gate.set()
        return await flights.run("key", call)

    asyncio.run(leave_in_flight())
    assert asyncio.run(ask()) == "result"


async def test_many_who_waited_for_one_call_leave_the_loop_its_turns() -> None:
    flights, call = SingleFlight[str](), Call()
    askers = [asyncio.create_task(flights.run("key", call)) for _ in range(100)]
    await settle()
    call.gate.set()
    done_in_a_turn, done = [], 0
    while done < len(askers):
        await asyncio.sleep(0)
        done_in_a_turn.append(sum(asker.done() for asker in askers) - done)
        done += done_in_a_turn[-1]
    assert max(done_in_a_turn) <= 4


async def test_who_waits_goes_on_in_the_turn_after_the_call_has_ended() -> None:
    flights: SingleFlight[str] = SingleFlight()
    call = Call()
    waiting = asyncio.create_task(flights.run("key", call))
    await settle()
    call.gate.set()
    turns = 0
    while not waiting.done():
        await asyncio.sleep(0)
        turns += 1
    # The call goes on, and its caller after it.
    assert turns == 2


async def test_a_call_that_is_cancelled_before_it_began_keeps_nobody_waiting() -> None:
    flights: SingleFlight[str] = SingleFlight()
    call = Call()
    with flights.board("key", call) as flight:
        flight.task.cancel()
        assert await flight.landed(60)
    assert flight.task.cancelled()
    assert not call.started
    assert not len(flights)
