"""A store of each kind, with a trail."""

from __future__ import annotations

from pathlib import Path

import pytest

from keystead.stores.schema import migrate
from tests.audit.marks import Setting
from tests.audit.places import Place, an_empty_place
from tests.fakes.clock import FakeClock
from tests.fakes.world import World


@pytest.fixture(params=["sqlite", "postgresql"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    """An empty store with its schema."""
    return an_empty_place(request, tmp_path)


@pytest.fixture
def sqlite_place(tmp_path: Path) -> Place:
    """An empty store in a file."""
    url = f"sqlite:///{tmp_path}/keys.db"
    migrate(url)
    return Place(url)


@pytest.fixture
def world(clock: FakeClock) -> World:
    """A KMS, a clock and a store in memory."""
    return World(clock)


@pytest.fixture
def postgres(postgres_url: str) -> Place:
    """An empty store in PostgreSQL."""
    migrate(postgres_url)
    return Place(postgres_url)


@pytest.fixture(params=["journal", "no journal"])
def setting(request: pytest.FixtureRequest, place: Place, tmp_path: Path) -> Setting:
    """A store of each kind, whose processes share a state folder or have none that knows anything."""
    return Setting(place, tmp_path, has_journal=request.param == "journal")


@pytest.fixture
def alone(place: Place, tmp_path: Path) -> Setting:
    """A store of each kind, and processes that know nothing of one another."""
    return Setting(place, tmp_path, has_journal=False)
