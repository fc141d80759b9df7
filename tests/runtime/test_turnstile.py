from __future__ import annotations

import asyncio

from keystead.runtime.turnstile import Turnstile


async def test_who_comes_alone_does_not_wait() -> None:
    coming = Turnstile().go_through()
    try:
        coming.send(None)
    except StopIteration:
        return
    coming.close()
    raise AssertionError("it waited for a turn of the loop")


async def test_of_many_who_come_together_one_goes_through_in_each_turn_and_in_order() -> None:
    turnstile, through = Turnstile(), list[int]()

    async def caller(number: int) -> None:
        await turnstile.go_through()
        through.append(number)

    callers = [asyncio.create_task(caller(number)) for number in range(50)]
    seen = 0
    while not all(each.done() for each in callers):
        await asyncio.sleep(0)
        assert len(through) <= seen + 1
        seen = len(through)
    assert through == list(range(50))


async def test_callers_who_have_left_hold_nobody_up() -> None:
    turnstile = Turnstile()
    callers = [asyncio.create_task(turnstile.go_through()) for _ in range(5)]
    await asyncio.sleep(0)
    for each in callers[:4]:
        each.cancel()
    await asyncio.wait_for(callers[4], 10)


def test_each_loop_has_turns_of_its_own() -> None:
    turnstile = Turnstile()

    async def come_twice() -> None:
        await turnstile.go_through()
        leaving = asyncio.create_task(turnstile.go_through())
        await asyncio.sleep(0)
        leaving.cancel()

    for _ in range(3):
        asyncio.run(asyncio.wait_for(come_twice(), 10))
