"""A service over a store of each kind."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.fakes.clock import FakeClock
from tests.server.clients import Client, Installation, Node


@pytest.fixture
def clock() -> FakeClock:
    """A clock that stands still, for background tasks as well."""
    return FakeClock(instant=False)


@pytest.fixture(params=["sqlite", "postgresql"])
def installation(request: pytest.FixtureRequest, tmp_path: Path, clock: FakeClock) -> Installation:
    """A KEK, a store and a clock."""
    is_file = request.param == "sqlite"
    url = f"sqlite:///{tmp_path}/keys.db" if is_file else request.getfixturevalue("postgres_url")
    return Installation(tmp_path, url, clock)


@pytest.fixture
async def node(installation: Installation) -> AsyncIterator[Node]:
    """One node of a service."""
    async with installation.node() as started:
        yield started


@pytest.fixture
async def ada(node: Node) -> Client:
    """A user's application."""
    return await node.client("ada")


@pytest.fixture
async def development(installation: Installation) -> AsyncIterator[Client]:
    """A client of a service that runs with ``--dev``."""
    async with installation.node(is_development=True) as started:
        yield await started.client()
