"""Managers to import into, and old databases to import from."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from keystead import KeyManager, LocalKMSConfig, LocalKMSProvider
from tests.fakes.clock import FakeClock
from tests.legacy.sources import ROOT

KEK = b"test key, 32 bytes, never use me"


@pytest.fixture(params=["sqlite", "postgresql"])
def source(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of an empty database for the old tables."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'old.db'}"
    url: str = request.getfixturevalue("postgres_url")
    return url


@pytest.fixture
def old_db(tmp_path: Path) -> str:
    """The URL of an empty SQLite database for the old tables."""
    return f"sqlite:///{tmp_path / 'old.db'}"


@pytest.fixture
def new_manager(tmp_path: Path, clock: FakeClock) -> Callable[[], KeyManager]:
    """Make a manager over the test's store, without a background task."""

    def make() -> KeyManager:
        return KeyManager(
            {"local": LocalKMSProvider(LocalKMSConfig(master_key=KEK))},
            store=f"sqlite:///{tmp_path / 'keys.db'}",
            background=False,
            clock=clock,
        )

    return make


@pytest.fixture
async def km(new_manager: Callable[[], KeyManager]) -> AsyncIterator[KeyManager]:
    """An open manager over the test's store."""
    async with new_manager() as manager:
        yield manager


@pytest.fixture
def root() -> Callable[[], bytes]:
    """The old root key, as the vectors give it."""
    return lambda: ROOT
