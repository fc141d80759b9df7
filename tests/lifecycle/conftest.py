"""One installation for each test."""

from __future__ import annotations

from pathlib import Path

import pytest

from keystead.stores.schema import migrate
from tests.fakes.clock import FakeClock
from tests.fakes.world import World


@pytest.fixture
def world(clock: FakeClock) -> World:
    """A KMS, a clock and a store in memory."""
    return World(clock)


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of a durable store without keys."""
    made: str = request.getfixturevalue("postgres_url") if request.param == "postgresql" else ""
    made = made or f"sqlite:///{tmp_path}/keys.db"
    migrate(made)
    return made
