"""Times of key pairs are those of UTC, wherever a node stands and whatever its clocks do there."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest

from keystead.errors import KeyExpiredError
from tests.devices.room import ADA, DAY, SECOND, client_keys
from tests.fakes.clock import FakeClock
from tests.fakes.world import World, polled

MOMENTS = (
    datetime(2031, 1, 31, 23, 59, 59, 999_000, tzinfo=UTC),
    datetime(2031, 2, 28, 12, tzinfo=UTC),
    # The hours that clocks skip and repeat meanwhile, in America and in Europe.
    datetime(2031, 3, 9, 6, 59, 59, tzinfo=UTC),
    datetime(2031, 3, 30, 0, 30, tzinfo=UTC),
    datetime(2031, 10, 26, 0, 30, tzinfo=UTC),
)


@pytest.fixture(params=["America/New_York", "Asia/Kathmandu", "Europe/Dublin", "Pacific/Kiritimati"])
def zone(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A time zone, in which this process is."""
    with monkeypatch.context() as patched:
        patched.setenv("TZ", request.param)
        patched.setenv("PGTZ", request.param)
        time.tzset()
        assert time.timezone != 0 or time.daylight
        yield request.param
    time.tzset()


@pytest.mark.usefixtures("zone")
async def test_a_pair_lives_for_its_days_to_the_second(world: World, clock: FakeClock) -> None:
    async with world.open() as km:
        keys = await client_keys(km)
        for number, moment in enumerate(MOMENTS):
            clock.set(moment)
            await polled(km)
            key = await keys.generate(ADA, f"phone {number}")
            assert key.expires_at == moment + timedelta(seconds=30 * 86_400)
            assert (await keys.find(ADA, key.id)).expires_at == key.expires_at
            clock.set(key.expires_at - SECOND)
            assert (await keys.generate(ADA, f"phone {number}")).id == key.id
            clock.set(key.expires_at + timedelta(minutes=5))
            with pytest.raises(KeyExpiredError):
                await keys.find(ADA, key.id)
            assert (await keys.generate(ADA, f"phone {number}")).expires_at == clock.now() + 30 * DAY
