"""The recordings say what OpenBao does: played on it again, they hold."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager

import pytest

from tests.transit.replay.player import play_in_time
from tests.transit.replay.recordings import names, scenario
from tests.transit.targets.openbao import OpenBaoTarget


@pytest.mark.parametrize("name", names())
def test_a_fresh_openbao_answers_as_was_recorded(
    name: str, open_openbao: Callable[[], AbstractContextManager[OpenBaoTarget]]
) -> None:
    played = play_in_time(scenario(name), open_openbao)
    assert not played.differences, str(played)
    assert played.compared == sum(not each.is_fault for each in scenario(name).exchanges)
