"""Keystead answers as OpenBao was recorded to, except where it means not to."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager

import pytest

from tests.transit.deviations import NOT_PLAYED, NOT_RECORDED_HERE, OF_KEYSTEAD
from tests.transit.replay.player import play_in_time
from tests.transit.replay.recordings import names, scenario
from tests.transit.targets.keystead import KeysteadTarget


def test_every_scenario_is_played_or_says_why_not() -> None:
    assert set(NOT_PLAYED) <= set(names())
    assert not set(NOT_RECORDED_HERE) & set(names())


@pytest.mark.parametrize("name", [name for name in names() if name not in NOT_PLAYED])
def test_keystead_answers_as_was_recorded(
    name: str, open_keystead: Callable[[], AbstractContextManager[KeysteadTarget]]
) -> None:
    played = play_in_time(scenario(name), open_keystead, OF_KEYSTEAD)
    assert not played.differences, str(played)
