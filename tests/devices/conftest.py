"""Devices over a store of each kind."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from keystead.stores import open_store
from keystead.stores.schema import migrate
from tests.fakes.clock import FakeClock
from tests.fakes.world import World


@pytest.fixture(params=["memory", "sqlite", "postgresql"])
async def world(request: pytest.FixtureRequest, clock: FakeClock, tmp_path: Path) -> AsyncIterator[World]:
    """A KMS, a clock and a store."""
    made = World(clock)
    if request.param != "memory":
        url = f"sqlite:///{tmp_path}/keys.db" if request.param == "sqlite" else request.getfixturevalue("postgres_url")
        migrate(url)
        made.store = open_store(url)
    yield made
    await made.store.aclose()
