"""A plugin over a store of each kind."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from keystead.manager.manager import KeyManager
from keystead.stores.schema import migrate
from tests.server.kubernetes.plugins import Installation, Plugin, private_folder


@pytest.fixture
def sockets() -> Iterator[Path]:
    """A folder for sockets, by a path that is short enough for one."""
    with tempfile.TemporaryDirectory(prefix="ks-") as made:
        yield private_folder(Path(made))


@pytest.fixture(params=["sqlite", "postgresql"])
def cluster(
    request: pytest.FixtureRequest, tmp_path: Path, sockets: Path, monkeypatch: pytest.MonkeyPatch
) -> Installation:
    """A KMS with failure switches, a store and a folder for sockets."""
    is_file = request.param == "sqlite"
    url = f"sqlite:///{tmp_path}/keys.db" if is_file else request.getfixturevalue("postgres_url")
    migrate(url)
    made = Installation(url, sockets)
    monkeypatch.setattr(KeyManager, "from_config", made.manager)
    return made


@pytest.fixture
async def plugin(cluster: Installation) -> AsyncIterator[Plugin]:
    """A healthy plugin."""
    async with cluster.plugin() as started:
        yield started


@pytest.fixture(autouse=True)
def _grpc_is_quiet() -> None:
    """Keep what gRPC says of every poll out of the report of a failure."""
    logging.getLogger("grpc").setLevel(logging.INFO)
