"""A blocking manager over a store of its own, and a table of people."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest

from keystead import blocking
from keystead.providers.local.provider import LocalKMSConfig, LocalKMSProvider

KEK = bytes(range(32))
ROWS = 500


def manager(folder: Path) -> blocking.KeyManager:
    """Return a manager over the store of a folder, not opened yet."""
    provider = LocalKMSProvider(LocalKMSConfig(master_key=KEK))
    return blocking.KeyManager({"local": provider}, store=f"sqlite:///{folder}/keys.db", background=False)


@pytest.fixture
def km(tmp_path: Path) -> Iterator[blocking.KeyManager]:
    """An initialised manager."""
    with manager(tmp_path) as opened:
        yield opened


@pytest.fixture
def people() -> pa.Table:
    """A table with columns of several shapes."""
    return pa.table(
        {
            "id": range(ROWS),
            "email": [f"person-{number}@example.org" for number in range(ROWS)],
            "address": [{"street": f"Street {number}", "zip": number} for number in range(ROWS)],
            "tags": [["a", f"tag {number}"] for number in range(ROWS)],
            "note": [None if number % 3 else f"a note on {number}" for number in range(ROWS)],
        }
    )
