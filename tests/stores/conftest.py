"""One store of each kind, empty and open."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from keystead.ports import KeyStore
from keystead.stores import open_store
from keystead.stores.schema import migrate
from keystead.stores.sql import SqlKeyStore


@pytest.fixture(params=["sqlite", "postgresql"])
def durable_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of an empty durable store with its schema."""
    url: str = request.getfixturevalue("postgres_url") if request.param == "postgresql" else _file(tmp_path)
    migrate(url)
    return url


@pytest.fixture(params=["sqlite", "postgresql", "memory"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[KeyStore]:
    """An open, empty store."""
    url = {"sqlite": _file(tmp_path), "memory": "memory://"}.get(request.param)
    if url is None:
        url = request.getfixturevalue("postgres_url")
        migrate(url)
    made = open_store(url)
    await made.open()
    yield made
    await made.aclose()


@pytest.fixture
async def server(postgres_url: str) -> AsyncIterator[SqlKeyStore]:
    """An open store on PostgreSQL, with its schema."""
    migrate(postgres_url)
    opened = SqlKeyStore(postgres_url)
    await opened.open()
    yield opened
    await opened.aclose()


@pytest.fixture
async def other(postgres_url: str) -> AsyncIterator[SqlKeyStore]:
    """Another store on the same database."""
    opened = SqlKeyStore(postgres_url)
    yield opened
    await opened.aclose()


def _file(folder: Path) -> str:
    return f"sqlite:///{folder}/keys.db"
