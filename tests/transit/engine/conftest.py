"""Stores of each kind, and the engine over them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from keystead.manager.manager import KeyManager
from keystead.manager.transit import TransitEngine, transit
from keystead.providers.local.provider import LocalKMSConfig, LocalKMSProvider
from keystead.stores.schema import migrate
from tests.audit.places import KEK, Place


@dataclass(frozen=True)
class Engines:
    """One store, over which each node has an engine of its own."""

    place: Place

    @asynccontextmanager
    async def node(self, **options: Any) -> AsyncIterator[tuple[TransitEngine, KeyManager]]:
        """Give a node that looks at the store only when it is told to, or has to."""
        given: dict[str, Any] = {"background": False, "store": self.place.url, "initialization_timeout": 60}
        kms = {"local": LocalKMSProvider(LocalKMSConfig(master_key=KEK))}
        async with KeyManager(kms, **(given | options)) as km:
            yield await transit(km), km


@pytest.fixture(params=["sqlite", "postgresql"])
def engines(request: pytest.FixtureRequest, tmp_path: Path) -> Engines:
    """An empty store."""
    url = f"sqlite:///{tmp_path}/keys.db"
    if request.param == "postgresql":
        url = request.getfixturevalue("postgres_url")
    migrate(url)
    return Engines(Place(url))
