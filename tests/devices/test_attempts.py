from __future__ import annotations

from datetime import timedelta

import pytest

from keystead.devices.attempts import Lockout
from keystead.errors import ConfigurationError

MINUTE = timedelta(minutes=1)


def test_five_are_free_and_each_failure_from_then_on_locks_twice_as_long_up_to_a_day() -> None:
    rule = Lockout()
    assert [rule.after(failures) for failures in range(5)] == [None] * 5
    assert [rule.after(5 + number) for number in range(4)] == [MINUTE * 2**number for number in range(4)]
    assert rule.after(15) == MINUTE * 1024
    assert {rule.after(failures) for failures in (16, 100, 10**9)} == {timedelta(hours=24)}


def test_another_rule_is_kept_and_one_that_cannot_be_is_refused() -> None:
    rule = Lockout(free=1, first=timedelta(seconds=1), longest=timedelta(seconds=3))
    assert [rule.after(failures) for failures in range(4)] == [None, *(timedelta(seconds=s) for s in (1, 2, 3))]
    for wrong in ({"free": 0}, {"first": timedelta(0)}, {"longest": timedelta(seconds=1)}):
        with pytest.raises(ConfigurationError):
            Lockout(**wrong)
