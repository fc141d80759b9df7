from __future__ import annotations

import pytest

from keystead.devices import junk
from keystead.devices.junk import AT_ONCE, EACH_S, JunkLimit
from keystead.errors import RateLimitedError
from keystead.model import Principal
from tests.fakes.clock import FakeClock

ADA, BOB = Principal("ada"), Principal("bob")


def sent(limit: JunkLimit, who: Principal, times: int) -> int:
    taken = 0
    for _ in range(times):
        try:
            limit.check(who)
        except RateLimitedError:
            continue
        limit.count(who)
        taken += 1
    return taken


def test_so_much_of_a_user_is_taken_at_once_and_then_one_after_the_other(clock: FakeClock) -> None:
    limit = JunkLimit(clock)
    assert sent(limit, ADA, 100) == AT_ONCE
    assert sent(limit, BOB, 100) == AT_ONCE
    assert sent(limit, Principal("ada", "north"), 1) == 1
    with pytest.raises(RateLimitedError, match=f"try again in {EACH_S:.0f} seconds") as caught:
        limit.check(ADA)
    assert caught.value.retry_after_s == EACH_S
    clock.advance(EACH_S)
    assert sent(limit, ADA, 100) == 1
    clock.advance(AT_ONCE * EACH_S)
    assert sent(limit, ADA, 100) == AT_ONCE


def test_users_without_number_take_no_memory_without_bound(clock: FakeClock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(junk, "KNOWN", 10)
    limit = JunkLimit(clock)
    for number in range(100):
        limit.count(Principal(str(number)))
    assert len(limit._free_at) == 10
    assert sent(limit, Principal("99"), 100) == AT_ONCE - 1
