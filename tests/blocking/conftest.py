"""Managers for code that is not async, each over an SQLite file of its own."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from keystead.blocking import KeyManager
from keystead.providers.local.provider import LocalKMSConfig, LocalKMSProvider


@pytest.fixture
def store(tmp_path: Path) -> str:
    """The URL of an SQLite store that does not exist yet."""
    return f"sqlite:///{tmp_path}/keys.db"


@pytest.fixture
def provider() -> LocalKMSProvider:
    """A local KMS under a random master key."""
    return LocalKMSProvider(LocalKMSConfig(master_key=os.urandom(32)))


@pytest.fixture
def km(provider: LocalKMSProvider, store: str) -> Iterator[KeyManager]:
    """An initialised manager."""
    with KeyManager({"local": provider}, store=store) as manager:
        yield manager
