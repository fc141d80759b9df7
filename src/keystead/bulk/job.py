"""One run of a job over a dataset: what is left to do, its tasks, and the commit of each file.

Workers write new files where only this run looks; this process alone gives them their names, under the lease of the
dataset. Decision: docs/adr/0042-one-process-commits-bulk-work.md.
"""

from __future__ import annotations

import secrets
import threading
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from keystead.blocking.leases import alone, look_again
from keystead.bulk.datasets import FoundFile, Staging
from keystead.bulk.engines import BulkEngine
from keystead.bulk.manifest import Entry, Manifest, make_id
from keystead.bulk.report import Tally
from keystead.bulk.tasks import FileResult, FileToDo, KeyRules, Operation, Task
from keystead.bulk.worker import Worker
from keystead.errors import ConflictError, StorageOperationError, StoreFullError
from keystead.parquet.keys import material_of
from keystead.runtime.files import DISK_FULL

TASK_BYTES: Final = 64 * 1024 * 1024
"""Small files share a task up to this size."""
_TASKS_A_WORKER: Final = 4
"""At least, where there are so many files: the others wait for the last one to end."""


@dataclass(frozen=True, slots=True)
class ToDo:
    """One file, and what is to be done with it; ``sha256`` is what it must have, where that is known."""

    operation: Operation
    file: FoundFile
    sha256: str = ""


@dataclass(frozen=True, slots=True)
class Work:
    """What a run has to do.

    Attributes:
        name: two runs of one name do the same to a file.
        under: names the rules, and the versions that are active as the run begins.
        source: the folder of the files that are read.
    """

    name: str
    under: str
    source: Path
    rules: KeyRules | None
    todo: Sequence[ToDo]

    def tasks(self, home: Worker, engine: BulkEngine, *, token: int = 0, staged: str = "") -> Iterator[Task]:
        """Yield tasks, the largest files first, small ones together."""
        limit = min(TASK_BYTES, sum(each.file.size for each in self.todo) // (engine.workers * _TASKS_A_WORKER))
        number = 0
        for operation in Operation:
            files = [each for each in self.todo if each.operation is operation]
            for packed in _packed(sorted(files, key=lambda each: -each.file.size), limit):
                number += 1
                yield Task(
                    number=number,
                    operation=operation,
                    token=token,
                    store_id=home.store_id,
                    source=str(self.source.absolute()),
                    staged=staged,
                    files=tuple(FileToDo(each.file.name, each.sha256) for each in packed),
                    rules=self.rules,
                )


def _packed(files: Iterable[ToDo], limit: int) -> Iterator[list[ToDo]]:
    packed: list[ToDo] = []
    size = 0
    for each in files:
        if packed and size + each.file.size > limit:
            yield packed
            packed, size = [], 0
        packed.append(each)
        size += each.file.size
    if packed:
        yield packed


class Run:
    """A run under the lease of a dataset; a block ends it, and leaves what is committed.

    Args:
        home: this process's own worker.
        target: the dataset that is written.
        rules: by which it is.

    Raises:
        ConflictError: another process is at work on the dataset.
        DecryptionError: its manifest was changed by somebody else.
    """

    def __init__(self, home: Worker, target: Path, rules: KeyRules | None) -> None:
        self._home = home
        self._target = target
        self._rules = rules
        self._lost = threading.Event()

    def __enter__(self) -> Run:
        self._lease = alone(self._home.km, f"bulk:{make_id(self._target, secrets.token_hex(16))}", self._lost)
        self.token = self._lease.__enter__().token
        try:
            look_again(self._home.km)
            self._staging = Staging(self._target, self.token)
            self.manifest = Manifest(self._target, self._home.km, self._rules)
        except BaseException as failure:
            self._lease.__exit__(type(failure), failure, failure.__traceback__)
            raise
        return self

    def __exit__(self, *raised: object) -> None:
        self.manifest.close()
        self._staging.close()
        self._lease.__exit__(None, None, None)

    def do(self, work: Work, rules: KeyRules, engine: BulkEngine, tally: Tally) -> None:
        """Have everything done and committed, and write the manifest.

        Raises:
            ConflictError: the lease was lost to a later run.
            StoreFullError: the disk has no more room.
            KMSError: as ``BulkEngine.run``. What was committed until then stays, and is not done again.
        """
        if not work.todo and self.manifest.is_settled:
            return
        self.manifest.begin(self._home.km, rules, self.token)
        tasks = work.tasks(self._home, engine, token=self.token, staged=str(self._staging.folder.absolute()))

        def on_result(task: Task, results: list[FileResult]) -> None:
            for result in results:
                if self._lost.is_set():
                    return
                self._take(result, work, tally)
                tally.see(result.name)

        try:
            engine.run(tasks, self._home, on_result, self._lost)
            if self._lost.is_set():
                raise ConflictError("the lease of the dataset was lost, and the work stopped; run again to go on")
            # Of files that were left a first manifest would tell nothing, as of what somebody else put there.
            if self.manifest.is_known or not tally.failures:
                self.manifest.finish(self._staging, self.token)
        except OSError as exc:
            raise _as_ours(exc, self._target) from exc

    def _take(self, result: FileResult, work: Work, tally: Tally) -> None:
        if result.is_disk_full:
            raise _full(self._target)
        if result.code:
            tally.fail(result.name, result.code, result.reason)
        elif result.staged:
            self._commit(result, work)
            tally.rows += result.rows
            tally.bytes_written += result.size
        elif result.keys_staged:
            self._commit_keys(result, work)
        else:
            # Its keys were under the active versions already.
            tally.left += 1

    def _commit(self, result: FileResult, work: Work) -> None:
        material = material_of(Path(result.name))
        self.manifest.note(
            Entry(
                name=result.name,
                job=work.name,
                under=work.under,
                rows=result.rows,
                size=result.size,
                mtime_ns=result.mtime_ns,
                sha256=result.sha256,
                keys_sha256=result.keys_sha256,
                source_size=result.source_size,
                source_mtime_ns=result.source_mtime_ns,
            )
        )
        if result.keys_staged:
            self._staging.commit(result.keys_staged, material.as_posix())
        self._staging.commit(result.staged, result.name)
        if not result.keys_staged:
            # The new file has its keys in itself.
            (self._target / material).unlink(missing_ok=True)

    def _commit_keys(self, result: FileResult, work: Work) -> None:
        before = self.manifest.current(result.name)
        if before is not None:
            self.manifest.note(replace(before, keys_sha256=result.keys_sha256, under=work.under))
        self._staging.commit(result.keys_staged, material_of(Path(result.name)).as_posix())


def _full(target: Path) -> StoreFullError:
    return StoreFullError(
        f"the disk of {target} has no more room; what was committed stays: make room, and run again to go on"
    )


def _as_ours(exc: OSError, target: Path) -> StorageOperationError:
    if exc.errno in DISK_FULL:
        return _full(target)
    return StorageOperationError(f"{target} cannot be written: {exc.strerror or type(exc).__name__}")
