"""Two servers that are told the same random story answer alike."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, Phase, given, settings

from tests.transit.deviations import OF_KEYSTEAD
from tests.transit.differential.pair import Pair
from tests.transit.differential.stories import Step, stories
from tests.transit.targets.keystead import keystead_target
from tests.transit.targets.openbao import OpenBaoTarget, openbao_target

IS_FULL = os.environ.get("KEYSTEAD_SOAK") == "1"
TOLD = settings(
    max_examples=2_500 if IS_FULL else 60,
    deadline=None,
    phases=[Phase.explicit, Phase.generate, Phase.shrink],
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture, HealthCheck.data_too_large],
)


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OpenBaoTarget]:
    """The server that is right by definition."""
    with openbao_target(tmp_path_factory.mktemp("reference")) as target:
        target.mount()
        yield target


@pytest.fixture(scope="module")
def alike(reference: OpenBaoTarget, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    """Two servers of the same kind."""
    with openbao_target(tmp_path_factory.mktemp("another")) as another:
        another.mount()
        pair = Pair(reference, another)
        yield pair
        pair.close()


@pytest.fixture(scope="module")
def mixed(reference: OpenBaoTarget, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    """OpenBao, and Keystead."""
    with keystead_target(tmp_path_factory.mktemp("keystead")) as keystead:
        pair = Pair(reference, keystead, OF_KEYSTEAD)
        yield pair
        pair.close()


def told(pair: Pair, story: list[Step]) -> list[str]:
    """Tell a story and return what is not alike at the first step where anything is."""
    pair.begin()
    return next((wrong for step in story if (wrong := pair.tell(step))), [])


@pytest.mark.soak
@pytest.mark.timeout(0 if IS_FULL else 300)
@TOLD
@given(story=stories())
def test_two_servers_of_one_kind_answer_alike(alike: Pair, story: list[Step]) -> None:
    assert told(alike, story) == []


@pytest.mark.soak
@pytest.mark.timeout(0 if IS_FULL else 300)
@TOLD
@given(story=stories())
def test_keystead_answers_as_openbao_does(mixed: Pair, story: list[Step]) -> None:
    assert told(mixed, story) == []
