"""One installation for each test."""

from __future__ import annotations

import pytest

from tests.fakes.clock import FakeClock
from tests.fakes.world import World


@pytest.fixture
def world(clock: FakeClock) -> World:
    """A KMS, a clock and a store in memory."""
    return World(clock)
