"""The tests' clock moves when told, and only then."""

from __future__ import annotations

import asyncio
from datetime import timedelta

from tests.fakes.clock import START, FakeClock


async def test_an_instant_sleep_moves_both_times_on(clock: FakeClock) -> None:
    before = clock.monotonic()
    await clock.sleep(90)
    assert (clock.now() - START, clock.monotonic() - before) == (timedelta(seconds=90), 90)


async def test_a_held_sleeper_wakes_when_its_time_has_come() -> None:
    clock = FakeClock(instant=False)
    sleeper = asyncio.create_task(clock.sleep(30))
    await asyncio.sleep(0)
    clock.advance(29)
    await asyncio.sleep(0.01)
    assert not sleeper.done()
    clock.advance(timedelta(seconds=1))
    await asyncio.wait_for(sleeper, 30)


def test_setting_the_wall_time_leaves_the_monotonic_time(clock: FakeClock) -> None:
    before = clock.monotonic()
    clock.set(START - timedelta(days=1))
    assert clock.monotonic() == before
