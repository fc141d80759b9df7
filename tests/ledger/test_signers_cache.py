"""Keys held in memory: overwritten in the end, confirmed in time, fetched once however many ask."""

from __future__ import annotations

import asyncio
import copy
import gc
import hmac
import pickle
import threading
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import pytest

from keystead.errors import KeyNotFoundError, KMSError, ProviderAuthError, ProviderConnectionError, SystemShutdownError
from keystead.ledger.signers.cache import RETRY_S, Confirmed, HeldKey, Terms
from keystead.ledger.signers.material import MaterialKey
from keystead.model import SignatureAlgorithm
from tests.fakes.clock import FakeClock

KEY = bytes(range(32))
OUTAGE = ProviderConnectionError("the network is down")


@dataclass
class Source:
    """Gives a new value each time unless it is told to give the same one; fails when it is told to."""

    fetched: int = 0
    confirms: bool = False
    failure: Exception | None = None
    gate: asyncio.Event | None = None
    dropped: list[str] = field(default_factory=list)

    async def fetch(self, before: str | None) -> str:
        self.fetched += 1
        number = self.fetched
        if self.gate is not None:
            await self.gate.wait()
        if self.failure is not None:
            raise self.failure
        return before if before is not None and self.confirms else f"value {number}"

    def held(self, clock: FakeClock, ttl_s: float = 300.0, grace_s: float | None = 3600.0) -> Confirmed[str]:
        return Confirmed(self.fetch, Terms(clock, ttl_s, grace_s), drop=self.dropped.append)


@pytest.fixture
def source() -> Source:
    return Source()


async def settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


@pytest.mark.parametrize("copying", [pickle.dumps, copy.copy, copy.deepcopy])
@pytest.mark.parametrize("holder", [HeldKey(KEY), MaterialKey(KEY, "print", SignatureAlgorithm.HMAC_SHA_256)])
def test_f22_a_held_key_is_not_pickled_or_copied(holder: object, copying: Callable[[object], object]) -> None:
    # A copy is in a buffer that nobody wipes, and a pickle in a file that nobody guards.
    with pytest.raises(TypeError, match="cannot be pickled or copied"):
        copying(holder)


def test_f22_a_wiped_key_holds_zeros_only_and_does_nothing() -> None:
    key = HeldKey(KEY)
    buffer = key._key
    assert key.mac(b"message") == hmac.digest(KEY, b"message", "sha256")
    key.wipe()
    assert buffer == bytes(32)
    for use in (lambda: key.mac(b"message"), key.copy, lambda: key.derive("sign")):
        with pytest.raises(SystemShutdownError):
            use()


def test_a_key_wiped_in_the_middle_of_a_mac_gives_none(monkeypatch: pytest.MonkeyPatch) -> None:
    key = HeldKey(KEY)

    def digest(held: bytearray, message: bytes, name: str) -> bytes:
        key.wipe()
        return hmac.new(held, message, name).digest()

    monkeypatch.setattr("keystead.ledger.signers.cache.hmac.digest", digest)
    with pytest.raises(SystemShutdownError):
        key.mac(b"message")


def test_no_text_shows_a_held_key() -> None:
    assert repr(HeldKey(b"a canary that must never be seen")) == "HeldKey(hidden)"


async def test_a_value_is_fetched_once_and_kept_for_its_time(source: Source, clock: FakeClock) -> None:
    held = source.held(clock)
    assert {await held.get() for _ in range(5)} == {"value 1"}
    clock.advance(239)
    assert await held.get() == "value 1"
    assert source.fetched == 1


async def test_f8_the_time_of_a_value_does_not_follow_the_wall_clock(source: Source, clock: FakeClock) -> None:
    held = source.held(clock)
    await held.get()
    clock.set(clock.now().replace(year=2099))
    assert await held.get() == "value 1"
    clock.set(clock.now().replace(year=1999))
    clock.advance(300)
    assert await held.get() == "value 2"


async def test_f8_many_callers_at_once_share_one_fetch(source: Source, clock: FakeClock) -> None:
    source.gate = asyncio.Event()
    held = source.held(clock)
    callers = [asyncio.create_task(held.get()) for _ in range(50)]
    await settle()
    source.gate.set()
    assert set(await asyncio.gather(*callers)) == {"value 1"}
    assert source.fetched == 1


async def test_a_caller_that_is_cancelled_does_not_take_the_others_along(source: Source, clock: FakeClock) -> None:
    source.gate = asyncio.Event()
    held = source.held(clock)
    first, second = asyncio.create_task(held.get()), asyncio.create_task(held.get())
    await settle()
    first.cancel()
    await settle()
    source.gate.set()
    assert await second == "value 1"


async def test_a_value_whose_time_is_over_is_confirmed_before_it_is_given(source: Source, clock: FakeClock) -> None:
    source.confirms = True
    held = source.held(clock)
    await held.get()
    clock.advance(300)
    assert await held.get() == "value 1"
    assert (source.fetched, source.dropped) == (2, [])


async def test_a_value_that_is_replaced_is_dropped(source: Source, clock: FakeClock) -> None:
    held = source.held(clock)
    await held.get()
    clock.advance(300)
    assert await held.get() == "value 2"
    assert source.dropped == ["value 1"]


async def test_a_value_near_its_end_is_confirmed_while_it_is_used(source: Source, clock: FakeClock) -> None:
    held = source.held(clock)
    await held.get()
    clock.advance(250)
    assert await held.get() == "value 1"
    await settle()
    assert await held.get() == "value 2"
    clock.advance(200)
    assert await held.get() == "value 2"
    assert source.fetched == 2


async def test_what_fails_ahead_of_time_is_not_seen_and_not_hammered(source: Source, clock: FakeClock) -> None:
    held = source.held(clock)
    await held.get()
    clock.advance(250)
    source.failure = OUTAGE
    for _ in range(10):
        assert await held.get() == "value 1"
        await settle()
    assert source.fetched == 2
    clock.advance(RETRY_S)
    await held.get()
    await settle()
    assert source.fetched == 3


async def test_in_an_outage_a_value_is_used_for_the_grace_and_no_longer(source: Source, clock: FakeClock) -> None:
    held = source.held(clock, grace_s=3600)
    await held.get()
    source.failure = OUTAGE
    clock.advance(300)
    assert await held.get() == "value 1"
    clock.advance(3599)
    assert await held.get() == "value 1"
    await settle()
    clock.advance(1)
    with pytest.raises(ProviderConnectionError):
        await held.get()
    source.failure = None
    assert (await held.get()).startswith("value")


async def test_in_an_outage_nobody_waits_twice(source: Source, clock: FakeClock) -> None:
    held = source.held(clock)
    await held.get()
    source.failure = OUTAGE
    clock.advance(300)
    await held.get()
    source.gate = asyncio.Event()
    for _ in range(5):
        clock.advance(RETRY_S)
        assert await asyncio.wait_for(held.get(), 30) == "value 1"
    held.close()
    await settle()


async def test_an_outage_that_ends_is_noticed_by_itself(source: Source, clock: FakeClock) -> None:
    held = source.held(clock)
    await held.get()
    source.failure = OUTAGE
    clock.advance(300)
    await held.get()
    source.failure = None
    clock.advance(RETRY_S)
    await held.get()
    await settle()
    assert held.fresh == "value 3"


async def test_a_grace_of_none_never_ends(source: Source, clock: FakeClock) -> None:
    held = source.held(clock, grace_s=None)
    await held.get()
    source.failure = OUTAGE
    clock.advance(10**9)
    assert await held.get() == "value 1"


async def test_without_a_grace_an_outage_ends_use_with_the_time(source: Source, clock: FakeClock) -> None:
    held = source.held(clock, grace_s=0)
    await held.get()
    source.failure = OUTAGE
    clock.advance(299)
    assert await held.get() == "value 1"
    clock.advance(1)
    with pytest.raises(ProviderConnectionError):
        await held.get()


@pytest.mark.parametrize("failure", [ProviderAuthError("denied"), KeyNotFoundError("gone")])
async def test_a_refusal_ends_use_at_once_whatever_the_grace(
    source: Source, clock: FakeClock, failure: KMSError
) -> None:
    held = source.held(clock, grace_s=None)
    await held.get()
    source.failure = failure
    clock.advance(300)
    with pytest.raises(type(failure)):
        await held.get()
    assert source.dropped == ["value 1"]
    assert held.known is None


async def test_no_failure_is_remembered(source: Source, clock: FakeClock) -> None:
    source.failure = KeyNotFoundError("not yet")
    held = source.held(clock)
    for _ in range(3):
        with pytest.raises(KeyNotFoundError):
            await held.get()
    assert source.fetched == 3
    source.failure = None
    assert await held.get() == "value 4"


async def test_a_value_can_be_made_due(source: Source, clock: FakeClock) -> None:
    held = source.held(clock)
    await held.get()
    held.expire()
    assert await held.get() == "value 2"


async def test_with_no_time_at_all_every_call_fetches(source: Source, clock: FakeClock) -> None:
    held = source.held(clock, ttl_s=0, grace_s=0)
    assert [await held.get() for _ in range(3)] == ["value 1", "value 2", "value 3"]


async def test_after_close_the_value_is_dropped_and_nothing_is_fetched(source: Source, clock: FakeClock) -> None:
    held = source.held(clock)
    await held.get()
    held.close()
    held.close()
    assert source.dropped == ["value 1"]
    with pytest.raises(SystemShutdownError):
        await held.get()
    assert source.fetched == 1


async def test_what_is_fetched_while_it_is_closed_is_dropped_as_well(source: Source, clock: FakeClock) -> None:
    source.gate = asyncio.Event()
    held = source.held(clock)
    caller = asyncio.create_task(held.get())
    await settle()
    held.close()
    source.gate.set()
    with pytest.raises(SystemShutdownError):
        await caller
    assert source.dropped == ["value 1"]


async def test_closing_ends_what_goes_on_in_the_background(source: Source, clock: FakeClock) -> None:
    held = source.held(clock)
    await held.get()
    clock.advance(250)
    source.gate = asyncio.Event()
    await held.get()
    await settle()
    held.close()
    await settle()
    assert not held._behind


async def test_what_a_hook_raises_in_the_background_is_no_unseen_failure(source: Source, clock: FakeClock) -> None:
    held = source.held(clock)
    await held.get()
    clock.advance(250)
    source.failure = RuntimeError("an audit that is full")
    await held.get()
    await settle()
    gc.collect()
    assert held.known == "value 1"


def test_a_loop_that_ended_with_work_in_the_background_does_not_stop_the_next_one(clock: FakeClock) -> None:
    source = Source()
    held = source.held(clock)
    asyncio.run(held.get())
    loop = asyncio.new_event_loop()
    clock.advance(250)
    loop.run_until_complete(held.get())
    (left,) = held._behind
    loop.run_until_complete(asyncio.gather(left, return_exceptions=True))
    held._behind.add(left)  # as where the loop was closed before it could be done
    loop.close()
    clock.advance(250)

    async def get_and_wait() -> None:
        await held.get()
        await settle()

    asyncio.run(get_and_wait())
    assert source.fetched == 3


def in_threads(*calls: Callable[[], Awaitable[str]]) -> list[str]:
    results: list[str] = []
    threads = [threading.Thread(target=lambda call=call: results.append(asyncio.run(_run(call)))) for call in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


async def _run(call: Callable[[], Awaitable[str]]) -> str:
    return await call()


def test_two_event_loops_end_with_one_value(clock: FakeClock) -> None:
    source, both = Source(), threading.Barrier(2)

    async def fetch(before: str | None) -> str:
        both.wait(10)
        return await source.fetch(before)

    held = Confirmed(fetch, Terms(clock, 300), drop=source.dropped.append)
    results = in_threads(held.get, held.get)
    assert len(set(results)) == 1
    assert len(source.dropped) == 1
    assert held.known == results[0]
