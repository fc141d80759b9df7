"""A plain dataset, a store with its settings file, and the engines, each on workers of its own."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from distributed import LocalCluster

from keystead import bulk
from keystead.blocking import KeyManager
from keystead.bulk import BulkEngine, KeyRules
from keystead.cli.main import build_app
from keystead.parquet import ParquetKeys
from tests.cli.conftest import Cli, without_settings

RULES = KeyRules(columns={"pii": ["email"]}, plain="id")
FILES = 6
ROWS = 500


def table(number: int, rows: int = ROWS) -> pa.Table:
    """Return the rows of one file: no two files have one in common."""
    first = number * rows
    return pa.table(
        {
            "id": range(first, first + rows),
            "email": [f"person-{each}@example.org" for each in range(first, first + rows)],
            "amount": [each / 7 if each % 3 else None for each in range(rows)],
            "tags": [["a", f"tag {each}"] for each in range(rows)],
        }
    )


def plain_dataset(folder: Path, files: int = FILES, rows: int = ROWS) -> Path:
    """Write a dataset in two folders and return it."""
    for number in range(files):
        path = folder / f"country={'DE' if number % 2 else 'FR'}" / f"part-{number}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(table(number, rows), path, row_group_size=200)
    return folder


def rows_of(km: KeyManager, dataset: Path) -> pa.Table:
    """Return everything of an encrypted dataset, read as users do."""
    return ParquetKeys(km).dataset(dataset).to_table().sort_by("id")


def plain_rows_of(dataset: Path) -> pa.Table:
    """Return everything of a plain one."""
    return ds.dataset(dataset, format="parquet").to_table().sort_by("id")


def content_of(dataset: Path) -> dict[str, tuple[int, bytes]]:
    """Return every file below a folder, Keystead's own among them: when it was changed, and what is in it."""
    files = [path for path in dataset.rglob("*") if path.is_file()]
    return {str(path.relative_to(dataset)): (path.stat().st_mtime_ns, path.read_bytes()) for path in files}


@pytest.fixture(scope="session")
def initialised(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which `keystead init` has run, to be copied."""
    folder = tmp_path_factory.mktemp("init")
    with pytest.MonkeyPatch.context() as patch:
        without_settings(patch)
        patch.chdir(folder)
        Cli(build_app()).ok("init")
    return folder


@pytest.fixture
def work(tmp_path: Path, initialised: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder in which `keystead init` has run."""
    without_settings(monkeypatch)
    folder = tmp_path / "work"
    shutil.copytree(initialised, folder)
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def settings(work: Path) -> Path:
    """The settings file by which workers open the same store."""
    return work / "keystead.yaml"


@pytest.fixture
def km(work: Path) -> Iterator[KeyManager]:
    """An initialised manager of that store."""
    with KeyManager.from_config(background=False) as opened:
        yield opened


@pytest.fixture
def plain(tmp_path: Path) -> Path:
    """A dataset in clear."""
    return plain_dataset(tmp_path / "plain")


@pytest.fixture
def encrypted(km: KeyManager, plain: Path, tmp_path: Path) -> Path:
    """The same, encrypted by RULES."""
    assert bulk.encrypt(km, plain, tmp_path / "encrypted", RULES).is_complete
    return tmp_path / "encrypted"


@pytest.fixture(scope="package")
def shared_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCluster]:
    """Two workers on this machine."""
    os.environ["DASK_TEMPORARY_DIRECTORY"] = str(tmp_path_factory.mktemp("dask"))
    with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address="127.0.0.1:0") as cluster:
        yield cluster


@pytest.fixture(params=["inline", "processes", "dask"])
def engine(request: pytest.FixtureRequest) -> BulkEngine:
    """Each of the engines."""
    makers: dict[str, Callable[[], BulkEngine]] = {
        "inline": bulk.Inline,
        "processes": lambda: bulk.ProcessPool(2),
        "dask": lambda: bulk.Dask(request.getfixturevalue("shared_cluster").scheduler_address),
    }
    return makers[request.param]()
