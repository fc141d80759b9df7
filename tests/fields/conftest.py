"""An installation, and the application's database beside it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fakes.clock import FakeClock
from tests.fakes.world import World
from tests.fields.application import Application


@pytest.fixture
def world(clock: FakeClock) -> World:
    """A KMS, a clock and a store in memory."""
    return World(clock)


@pytest.fixture
def sqlite_app(tmp_path: Path) -> Application:
    """An empty SQLite database of the application's."""
    file = tmp_path / "app.db"
    file.touch()
    application = Application(f"sqlite:///{file}")
    application.run("PRAGMA user_version = 1")
    return application


@pytest.fixture(params=["sqlite", "postgresql"])
def app(request: pytest.FixtureRequest) -> Application:
    """An empty database of the application's, of each kind."""
    if request.param == "postgresql":
        return Application(request.getfixturevalue("postgres_url"))
    made: Application = request.getfixturevalue("sqlite_app")
    return made
