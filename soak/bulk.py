"""A dataset larger than one process is encrypted by each engine, and by workers, schedulers and callers that die."""

from __future__ import annotations

import os
import random
import shutil
import signal
import statistics
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import pyarrow.parquet as pq

from keystead import bulk
from keystead.blocking import KeyManager
from keystead.bulk.rewriting import groups
from keystead.parquet import ParquetKeys
from soak.bulk_places import (
    Cluster,
    Run,
    begin,
    cluster,
    descendants,
    expire_leases,
    is_worker,
    make_plain,
    make_settings,
)
from soak.bulk_run import RULES, WORKERS
from soak.figures import Figure, Figures, Setting
from soak.harness import ChildFailedError, in_child

MOST_MIB: Final = 600.0
"""Of one process, however large the dataset is: a row group of 16 MB, as it is read and as it is written."""
MOST_OVERHEAD: Final = 0.25
MOST_LIVES: Final = 20
PARTS: Final = 3
"""Of the dataset; every engine does each in turn, so that a slow spell of the machine hits all of them."""


@dataclass(frozen=True, slots=True)
class Scene:
    """What every part of the scenario needs."""

    figures: Figures
    settings: Path
    folder: Path


@dataclass(slots=True)
class Tried:
    """What was seen of one engine, over all parts; ``between_s`` is of each part, from its first file to its last."""

    took_s: float = 0.0
    between_s: list[float] = field(default_factory=list)
    peak_mib: float = 0.0
    wrong: int = 0
    again: int = 0


class Bulk:
    """See the module."""

    name = "bulk"
    claim = (
        "A Parquet dataset encrypted inline, by processes and on a Dask cluster is the same plaintext, in bounded "
        "memory; killing workers, the scheduler and the caller loses nothing, and a second run does nothing."
    )

    def run(self, setting: Setting) -> list[Figure]:
        """Run each engine in peace, and those with workers under kills."""
        figures, folder = Figures(), setting.folder / "bulk"
        plain = folder / "plain"
        scene = Scene(figures, make_settings(folder / "work"), folder)
        files, rows = setting.choose(short=(12, 43_000), full=(25, 1_000_000))
        parts = [plain / str(number) for number in range(PARTS)]
        size = sum(in_child(make_plain, part, files, rows) for part in parts)
        figures.tell("dataset", "GB, files", f"{size / 1e9:.2f}, {files * PARTS}")
        with cluster(folder / "dask", WORKERS) as made:
            tried = {name: Tried() for name in ("inline", "processes", "dask")}
            for part in parts:
                for name, each in tried.items():
                    _try(scene, name, part, each, made if name == "dask" else None)
        for name, each in tried.items():
            figures.equal(name, "files that are not the plaintext", each.wrong, 0)
            figures.tell(name, "MB a second, as plaintext is stored", size / each.took_s / 1e6)
            figures.at_most(name, "MiB of one process, at most", each.peak_mib, MOST_MIB)
            figures.equal(name, "files that second runs did or touched", each.again, 0)
        pairs = zip(tried["dask"].between_s, tried["processes"].between_s, strict=True)
        overhead = statistics.median(one / other for one, other in pairs) - 1
        what = f"overhead of Dask over processes, from the first file to the last, median of {PARTS} parts"
        if setting.is_full:
            figures.at_most("dask", what, overhead, MOST_OVERHEAD)
        else:
            # A second or two, in which anything else on the machine counts for more.
            figures.tell("dask", what, overhead)
        _under_kills(scene, parts[0], files)
        return figures.rows


def _try(scene: Scene, name: str, part: Path, tried: Tried, on: Cluster | None) -> None:
    """Encrypt one part by one engine, compare it, and encrypt it once more."""
    target = scene.folder / f"by-{name}-{part.name}"
    run = begin(scene.settings, name if on is None else on.address, part, target, on=on)
    answer = run.follow()
    if not answer:
        raise ChildFailedError(f"the run by {name} came to no end")
    tried.took_s += answer["took_s"]
    tried.between_s.append(answer["between_s"])
    tried.peak_mib = max(tried.peak_mib, run.peak_mib)
    tried.wrong += in_child(differing, scene.settings, part, target)
    before = state_of(target)
    again = begin(scene.settings, "inline", part, target).follow()
    tried.again += again["done"] + (state_of(target) != before)
    shutil.rmtree(target)


def _under_kills(scene: Scene, plain: Path, files: int) -> None:
    """Kill a worker and the scheduler of a cluster, then a caller, and a worker of the next, and see what is left."""
    figures, settings = scene.figures, scene.settings
    target = scene.folder / "killed"
    killed = {"workers": 0, "callers": 0, "schedulers": 0}
    lives = 0
    with cluster(scene.folder / "dask-1", WORKERS) as made:
        first, second = max(2, files // 8), max(4, files // 4)

        def on_file(done: int) -> None:
            if done == first:
                killed["workers"] += _kill(made.workers())
            if done == second:
                killed["schedulers"] += _kill([made.scheduler.pid])

        begin(settings, made.address, plain, target).follow(on_file)
    while lives < MOST_LIVES:
        lives += 1
        expire_leases(settings)
        run = begin(settings, "processes", plain, target)
        answer = run.follow(_killing(run, lives, killed))
        if answer and not answer["failures"]:
            break
    figures.tell("under kills", "workers, callers, schedulers killed", ", ".join(map(str, killed.values())))
    figures.at_least("under kills", "of these, at least one of each", min(killed.values()), 1)
    figures.equal("under kills", "files that are not the plaintext", in_child(differing, settings, plain, target), 0)
    verified = in_child(_verified, settings, target)
    figures.equal("under kills", "files that verify", verified, files)
    again = begin(settings, "processes", plain, target).follow()
    figures.equal("under kills", "files that a last run did", again["done"], 0)


def _killing(run: Run, life: int, killed: dict[str, int]) -> Callable[[int], object]:
    """Return what kills the caller in the first life, a worker in the second, and nobody afterwards."""

    def on_file(done: int) -> None:
        if done != 1:
            return
        if life == 1:
            killed["callers"] += _kill([run.process.pid])
        elif life == 2:
            killed["workers"] += _kill([pid for pid in descendants(run.process.pid)[1:] if is_worker(pid)])

    return on_file


def _kill(pids: list[int]) -> int:
    if not pids:
        return 0
    os.kill(random.choice(pids), signal.SIGKILL)
    return 1


def differing(settings: Path, plain: Path, target: Path) -> int:
    """Return how many files of a plain dataset are not what is encrypted under their name, group by group."""
    wrong = 0
    with KeyManager.from_config(settings, background=False) as km:
        keys = ParquetKeys(km)
        for path in sorted(plain.iterdir()):
            if not (target / path.name).exists():
                wrong += 1
                continue
            with pq.ParquetFile(path) as old, keys.open(target / path.name) as new:
                same = [one.equals(other) for one, other in zip(groups(old), groups(new), strict=True)]
                wrong += not all(same)
    return wrong


def _verified(settings: Path, target: Path) -> int:
    with KeyManager.from_config(settings, background=False) as km:
        report = bulk.verify(km, target, RULES)
        return report.done if report.is_complete else -len(report.failures)


def state_of(folder: Path) -> dict[str, tuple[int, int]]:
    """Return when each file below a folder was changed, and which one it is."""
    found = {str(path): path.stat() for path in folder.rglob("*") if path.is_file()}
    return {name: (stat.st_mtime_ns, stat.st_ino) for name, stat in found.items()}
