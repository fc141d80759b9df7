"""A store of each kind, and beside it a log of erasures of each kind."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.erasure.places import Place


@pytest.fixture(params=["sqlite", "postgresql"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    """An empty store, whose log of erasures is a file."""
    return Place.of(request, tmp_path)
