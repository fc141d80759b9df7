from __future__ import annotations

from datetime import UTC, datetime, timedelta

from keystead.ports import Clock
from keystead.runtime.clock import SystemClock

CLOCK: Clock = SystemClock()


def test_the_wall_time_is_aware_utc() -> None:
    assert CLOCK.now().tzinfo is UTC
    assert abs(CLOCK.now() - datetime.now(UTC)) < timedelta(seconds=5)


async def test_sleeping_takes_the_time_it_says() -> None:
    before = CLOCK.monotonic()
    await CLOCK.sleep(0.01)
    assert CLOCK.monotonic() - before >= 0.009
