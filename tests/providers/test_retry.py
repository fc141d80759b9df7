"""How often calls are repeated in good times, in bad ones, and in an outage."""

from __future__ import annotations

import random

import pytest

from keystead.errors import ProviderConnectionError
from keystead.providers.guard import GuardedProvider
from keystead.testing import FakeKMS
from tests.fakes.clock import FakeClock

THROTTLED = ProviderConnectionError("slow down")
CALLS = 1000


class Flaky:
    """Fails every nth attempt."""

    provider_name = "flaky"

    def __init__(self, kms: FakeKMS, nth: int) -> None:
        self._kms = kms
        self._nth = nth
        self.attempts = 0

    async def encrypt(self, *given: object, **named: object) -> object:
        self.attempts += 1
        if self.attempts % self._nth == 0:
            raise THROTTLED
        return await self._kms.encrypt(*given, **named)  # type: ignore[arg-type]

    async def decrypt(self, *given: object, **named: object) -> bytes:
        raise NotImplementedError


async def results(flaky: Flaky, clock: FakeClock, calls: int) -> int:
    """Return how many of so many calls succeed, the clock moving on by itself."""
    guarded = GuardedProvider(flaky, "cloud", clock=Hasty(clock), random=random.Random(5).randbytes)  # type: ignore[arg-type]
    succeeded = 0
    for _ in range(calls):
        try:
            await guarded.encrypt(b"value", "key")
        except ProviderConnectionError:
            continue
        succeeded += 1
    return succeeded


class Hasty:
    """A clock whose pauses are over at once."""

    def __init__(self, clock: FakeClock) -> None:
        self.now = clock.now
        self.monotonic = clock.monotonic

    async def sleep(self, seconds: float) -> None:
        return


async def test_of_a_service_that_throttles_a_fifth_of_the_calls_nearly_all_succeed(clock: FakeClock) -> None:
    flaky = Flaky(FakeKMS(clock=clock), 5)
    assert await results(flaky, clock, CALLS) >= 0.99 * CALLS
    assert flaky.attempts <= 3 * CALLS


async def test_a_service_that_throttles_everything_gets_a_tenth_more_calls_at_most(clock: FakeClock) -> None:
    flaky = Flaky(FakeKMS(clock=clock), 1)
    assert await results(flaky, clock, CALLS) == 0
    assert flaky.attempts <= 1.1 * CALLS


async def test_after_an_outage_calls_are_repeated_again(clock: FakeClock) -> None:
    flaky = Flaky(FakeKMS(clock=clock), 1)
    guarded = GuardedProvider(flaky, "cloud", clock=Hasty(clock))  # type: ignore[arg-type]
    for _ in range(100):
        with pytest.raises(ProviderConnectionError):
            await guarded.encrypt(b"value", "key")
    flaky._nth = 10**9
    for _ in range(50):
        await guarded.encrypt(b"value", "key")
    flaky._nth, flaky.attempts = 2, 1
    await guarded.encrypt(b"value", "key")
    assert flaky.attempts == 3


async def test_a_service_that_says_when_to_come_back_is_left_alone_until_then(clock: FakeClock) -> None:
    kms, slept = FakeKMS(clock=clock), list[float]()

    class Noting(Hasty):
        async def sleep(self, seconds: float) -> None:
            slept.append(seconds)

    kms.fail_next(1, ProviderConnectionError("slow down", retry_after_s=3.0))
    await GuardedProvider(kms, "cloud", clock=Noting(clock)).encrypt(b"value", "key")
    assert slept == [3.0]


async def test_a_service_that_asks_for_more_time_than_there_is_is_not_asked_again(clock: FakeClock) -> None:
    kms = FakeKMS(clock=clock)
    kms.fail_next(1, ProviderConnectionError("slow down", retry_after_s=60.0))
    with pytest.raises(ProviderConnectionError):
        await GuardedProvider(kms, "cloud", clock=Hasty(clock), deadline_s=10).encrypt(b"value", "key")
    assert kms.calls["encrypt"] == 1
