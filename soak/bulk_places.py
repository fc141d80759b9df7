"""Where bulk work happens: a store with its settings file, plain datasets, clusters, and runs that are watched."""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from keystead.blocking import KeyManager
from keystead.providers.local.kek_file import create_kek_file
from soak.harness import wait_for

ROOT: Final = Path(__file__).resolve().parents[1]
TIMEOUT_S: Final = 3600.0
_LOOK_S: Final = 0.1
_QUIET: Final = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}


def make_settings(folder: Path) -> Path:
    """Make a KEK file, a store and a settings file, and return that."""
    folder.mkdir(parents=True)
    create_kek_file(folder / "kek")
    (folder / "keystead.yaml").write_text('store: "sqlite:///keys.db"\nkms: "file:kek"\n')
    with KeyManager.from_config(folder / "keystead.yaml", background=False):
        return folder / "keystead.yaml"


def make_plain(folder: Path, files: int, rows: int) -> int:
    """Write a plain dataset of files of one size, and return how many bytes it has; 80 bytes a row, about."""
    folder.mkdir(parents=True)
    notes = os.urandom(24 * rows).hex()
    amounts = memoryview(os.urandom(4 * rows)).cast("i").tolist()
    columns = {
        "email": [f"person-{number}@example.org" for number in range(rows)],
        "note": [notes[48 * number : 48 * number + 48] for number in range(rows)],
        "amount": [each / 7 for each in amounts],
    }
    table = pa.table(columns)
    for number in range(files):
        ids = pa.array(range(number * rows, number * rows + rows))
        pq.write_table(table.add_column(0, "id", ids), folder / f"part-{number:03}.parquet", row_group_size=200_000)
    return sum(path.stat().st_size for path in folder.iterdir())


def expire_leases(settings: Path) -> None:
    """Let the time of a killed run's lease pass."""
    with contextlib.closing(sqlite3.connect(settings.parent / "keys.db", timeout=30)) as connection, connection:
        connection.execute("UPDATE leases SET until_ms = 0")


@dataclass(slots=True)
class Run:
    """A run as a process: files that it told to be done, and the most memory that it or a worker of it ever had."""

    process: subprocess.Popen[str]
    on: Cluster | None = None
    done: int = 0
    peak_mib: float = 0.0
    answer: dict[str, Any] = field(default_factory=dict)

    def follow(self, on_file: Callable[[int], object] = lambda done: None) -> dict[str, Any]:
        """Read what it tells to its end, and return its answer; empty where it came to none."""
        watching = threading.Thread(target=self._watch, daemon=True)
        watching.start()
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.startswith("{"):
                self.answer = json.loads(line)
            elif line.strip().isdigit():
                self.done = int(line)
                on_file(self.done)
        self.process.wait(TIMEOUT_S)
        watching.join()
        return self.answer

    def _watch(self) -> None:
        while self.process.poll() is None:
            others = [] if self.on is None else self.on.processes()
            self.peak_mib = max(self.peak_mib, *map(peak_mib_of, [*descendants(self.process.pid), *others, 0]))
            time.sleep(_LOOK_S)


def begin(settings: Path, engine: str, source: Path, target: Path, *, on: Cluster | None = None) -> Run:
    """Begin a run; ``on`` is a cluster that is watched with it."""
    command = [sys.executable, "-m", "soak.bulk_run", str(settings), engine, str(source), str(target)]
    started = subprocess.Popen(
        command, cwd=ROOT, env=_environment(), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    return Run(started, on)


@dataclass(frozen=True, slots=True)
class Cluster:
    """A scheduler and what keeps its workers alive, as processes."""

    address: str
    scheduler: subprocess.Popen[bytes]
    nanny: subprocess.Popen[bytes]

    def processes(self) -> list[int]:
        """Return every process of it."""
        return [*descendants(self.scheduler.pid), *descendants(self.nanny.pid)]

    def workers(self) -> list[int]:
        """Return the processes that run tasks."""
        return [pid for pid in descendants(self.nanny.pid)[1:] if is_worker(pid)]


@contextmanager
def cluster(folder: Path, workers: int) -> Iterator[Cluster]:
    """Start a Dask cluster on this machine, whose workers come back when they die."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "scheduler.json"
    file.unlink(missing_ok=True)
    where = {**_environment(), "DASK_TEMPORARY_DIRECTORY": str(folder)}
    module = [sys.executable, "-m"]
    begin_scheduler = [
        *module,
        "distributed.cli.dask_scheduler",
        "--host",
        "127.0.0.1",
        "--port",
        "0",
        "--no-dashboard",
    ]
    scheduler = subprocess.Popen(
        [*begin_scheduler, "--scheduler-file", str(file)],
        cwd=ROOT,
        env=where,
        **_QUIET,  # type: ignore[call-overload]
    )
    nanny = None
    try:
        wait_for(file.exists, 60, "a scheduler")
        options = ["--scheduler-file", str(file), "--nworkers", str(workers), "--nthreads", "1", "--no-dashboard"]
        nanny = subprocess.Popen(
            [*module, "distributed.cli.dask_worker", *options],
            cwd=ROOT,
            env=where,
            **_QUIET,  # type: ignore[call-overload]
        )
        made = Cluster(json.loads(file.read_text())["address"], scheduler, nanny)
        wait_for(lambda: len(made.workers()) >= workers, 60, "workers")
        yield made
    finally:
        for each in (nanny, scheduler):
            if each is not None:
                for pid in reversed(descendants(each.pid)):
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, 9)
                each.wait(60)


def descendants(pid: int) -> list[int]:
    """Return a process and every one that it started, and those did; nothing of one that is gone."""
    try:
        threads = list(Path(f"/proc/{pid}/task").iterdir())
    except OSError:
        return []
    return [pid, *(each for thread in threads for child in _children_of(thread) for each in descendants(child))]


def is_worker(pid: int) -> bool:
    """Whether a process was started by multiprocessing to do something."""
    try:
        return b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


def peak_mib_of(pid: int) -> float:
    """Return the most memory that a process ever had."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
    return 0.0


def _children_of(thread: Path) -> list[int]:
    # A thread may end while it is looked at.
    with contextlib.suppress(OSError):
        return [int(each) for each in (thread / "children").read_text().split()]
    return []


def _environment() -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("KEYSTEAD_")}
    return {**kept, "PYTHONPATH": os.pathsep.join(each for each in sys.path if each)}
