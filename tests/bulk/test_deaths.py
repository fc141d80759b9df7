"""Workers, schedulers and callers are killed in the middle: nothing is lost, and the next run goes on."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeAlias

import pytest
from distributed import LocalCluster

from keystead import bulk
from keystead.blocking import KeyManager
from keystead.bulk import BulkEngine, BulkProgress
from keystead.errors import ConflictError, WorkersLostError
from soak import bulk_places as places
from soak.harness import wait_for
from tests.bulk.conftest import RULES, plain_dataset, plain_rows_of, rows_of
from tests.cli.conftest import environment

Start: TypeAlias = Callable[[Path], contextlib.AbstractContextManager[tuple[BulkEngine, Callable[[], list[int]]]]]
FILES = 12
ROWS = 20_000
POISON = "part-3.parquet"
SITE = f"""
import os, pathlib
_stat = pathlib.Path.stat
def stat(self, **how):
    if self.name == {POISON!r}:
        os.kill(os.getpid(), 9)
    return _stat(self, **how)
pathlib.Path.stat = stat
"""
RUN = """
    import sys
    from keystead import bulk
    from keystead.blocking import KeyManager
    from tests.bulk.conftest import RULES

    def main():
        with KeyManager.from_config("keystead.yaml", background=False) as km:
            bulk.encrypt(
                km, sys.argv[1], sys.argv[2], RULES, engine=bulk.ProcessPool(2), settings="keystead.yaml",
                on_progress=lambda told: print(told.files_done, flush=True),
            )

    if __name__ == "__main__":
        main()
"""


@pytest.fixture
def many(tmp_path: Path) -> Path:
    """A plain dataset that takes a while."""
    return plain_dataset(tmp_path / "many", FILES, ROWS)


@contextlib.contextmanager
def cluster(folder: Path) -> Iterator[LocalCluster]:
    """Start workers of a test's own."""
    with LocalCluster(
        n_workers=2, threads_per_worker=1, dashboard_address="127.0.0.1:0", local_directory=str(folder / "dask")
    ) as made:
        yield made


@contextlib.contextmanager
def pool(folder: Path) -> Iterator[tuple[BulkEngine, Callable[[], list[int]]]]:
    """Return an engine of processes, and what tells their numbers."""
    yield (
        bulk.ProcessPool(2),
        lambda: [each.pid for each in multiprocessing.active_children() if each.pid and "Spawn" in type(each).__name__],
    )


@contextlib.contextmanager
def dask(folder: Path) -> Iterator[tuple[BulkEngine, Callable[[], list[int]]]]:
    """Return an engine on a cluster, and what tells its workers' numbers."""
    with cluster(folder) as made:
        yield bulk.Dask(made.scheduler_address), lambda: [worker.pid for worker in made.workers.values()]


@pytest.mark.parametrize("start", [pool, dask])
def test_a_worker_that_is_killed_repeats_harmlessly(
    km: KeyManager,
    many: Path,
    tmp_path: Path,
    settings: Path,
    start: Start,
) -> None:
    target, killed = tmp_path / "encrypted", 0
    with start(tmp_path) as (engine, pids):

        def on_progress(progress: BulkProgress) -> None:
            nonlocal killed
            if not killed:
                killed = pids()[0]
                os.kill(killed, signal.SIGKILL)

        report = bulk.encrypt(km, many, target, RULES, engine=engine, settings=settings, on_progress=on_progress)
    assert killed
    assert (report.done, report.failures) == (FILES, [])
    assert rows_of(km, target).equals(plain_rows_of(many))
    assert bulk.verify(km, target, RULES).done == FILES
    assert sorted(path.name for path in (target / "_keystead").iterdir()) == ["dataset", "manifest.json"]


@pytest.fixture
def _poison(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every process that is started from now on ends when it looks at one file."""
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(SITE)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path / "site"), *sys.path]))


@pytest.mark.usefixtures("_poison")
@pytest.mark.parametrize("start", [pool, dask])
def test_a_file_over_which_every_worker_dies_is_reported_and_the_others_are_done(
    km: KeyManager,
    plain: Path,
    tmp_path: Path,
    settings: Path,
    start: Start,
) -> None:
    with start(tmp_path) as (engine, _):
        report = bulk.encrypt(km, plain, tmp_path / "encrypted", RULES, engine=engine, settings=settings)
    assert [(each.name, each.code) for each in report.failures] == [(f"country=DE/{POISON}", "workers_lost")]
    assert report.done == report.files - 1
    assert bulk.encrypt(km, plain, tmp_path / "encrypted", RULES).done == 1
    assert rows_of(km, tmp_path / "encrypted").equals(plain_rows_of(plain))


def test_a_caller_that_is_killed_takes_its_workers_with_it_and_the_next_run_goes_on(
    km: KeyManager, many: Path, tmp_path: Path, settings: Path
) -> None:
    target, script = tmp_path / "encrypted", tmp_path / "run.py"
    script.write_text(textwrap.dedent(RUN))
    command = [sys.executable, str(script), str(many), str(target)]
    where = {**environment(), "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(command, cwd=settings.parent, env=where, stdout=subprocess.PIPE, text=True) as running:
        assert running.stdout is not None
        for line in running.stdout:
            if int(line) == 3:
                break
        workers = [pid for pid in places.descendants(running.pid) if places.is_worker(pid)]
        os.kill(running.pid, signal.SIGKILL)
    assert len(workers) >= 2
    wait_for(lambda: not any(map(is_alive, workers)), 30, "workers to end")
    committed = {path.relative_to(target) for path in target.rglob("part-*.parquet") if "_keystead" not in path.parts}
    assert 3 <= len(committed) < FILES
    before = {name: (target / name).read_bytes() for name in committed}
    with pytest.raises(ConflictError, match="another process is at work"):
        bulk.encrypt(km, many, target, RULES)
    places.expire_leases(settings)
    report = bulk.encrypt(km, many, target, RULES)
    assert (report.done, report.unchanged) == (FILES - len(committed), len(committed))
    assert {name: (target / name).read_bytes() for name in committed} == before
    assert rows_of(km, target).equals(plain_rows_of(many))


def test_a_scheduler_that_is_killed_is_told_and_the_next_run_goes_on(
    km: KeyManager, many: Path, tmp_path: Path, settings: Path
) -> None:
    target = tmp_path / "encrypted"
    with places.cluster(tmp_path / "dask", 1) as made:

        def on_progress(progress: BulkProgress) -> None:
            if progress.files_done == 2:
                os.kill(made.scheduler.pid, signal.SIGKILL)

        engine = bulk.Dask(made.address)
        with pytest.raises(WorkersLostError, match="scheduler is gone"):
            bulk.encrypt(km, many, target, RULES, engine=engine, settings=settings, on_progress=on_progress)
        with pytest.raises(WorkersLostError, match="cannot be reached"):
            bulk.encrypt(km, many, target, RULES, engine=bulk.Dask(made.address, connect_s=1.0), settings=settings)
    report = bulk.encrypt(km, many, target, RULES)
    assert report.unchanged >= 2
    assert report.done + report.unchanged == FILES
    assert rows_of(km, target).equals(plain_rows_of(many))


def test_a_cluster_without_workers_is_waited_for_no_longer_than_told(
    km: KeyManager, plain: Path, tmp_path: Path, settings: Path
) -> None:
    with LocalCluster(n_workers=0, dashboard_address="127.0.0.1:0") as empty:
        engine = bulk.Dask(empty.scheduler_address, patience_s=2.0)
        with pytest.raises(WorkersLostError, match="no worker"):
            bulk.encrypt(km, plain, tmp_path / "encrypted", RULES, engine=engine, settings=settings)
    assert bulk.encrypt(km, plain, tmp_path / "encrypted", RULES).is_complete


def is_alive(pid: int) -> bool:
    """Whether a process is there, and not only its remains."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False
