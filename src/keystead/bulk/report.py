"""How far a job is, and what became of it."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from keystead.bulk.datasets import FoundFile
from keystead.bulk.tasks import Operation


@dataclass(frozen=True, slots=True)
class BulkProgress:
    """How far a run is. Bytes are those of the files that are read; what was done before this run is in neither."""

    files: int
    files_done: int
    bytes: int
    bytes_done: int
    failed: int
    seconds: float

    @property
    def seconds_left(self) -> float | None:
        """How long the rest takes at the pace of this run; None before there is one."""
        return None if not self.bytes_done else self.seconds * (self.bytes - self.bytes_done) / self.bytes_done


OnProgress: TypeAlias = Callable[[BulkProgress], None]


@dataclass(frozen=True, slots=True)
class FileFailure:
    """A file that was left as it is, and why: ``code`` is that of an error of Keystead, or ``file``."""

    name: str
    code: str
    reason: str


@dataclass(frozen=True, slots=True)
class BulkReport:
    """What became of the files of a dataset.

    ``done`` files were written or verified by this run, ``unchanged`` ones were as they should be before it. Rows and
    bytes are those of the files that were done; ``seconds`` is this run's time. ``dataset`` is the id of the dataset
    that was written or verified, empty where it has no manifest.
    """

    operation: Operation
    dataset: str
    engine: str
    files: int
    done: int
    unchanged: int
    rows: int
    bytes_read: int
    bytes_written: int
    seconds: float
    failures: list[FileFailure] = field(default_factory=list)

    @property
    def is_complete(self) -> bool:
        """Whether every file is as it should be."""
        return not self.failures


@dataclass(slots=True, kw_only=True)
class Tally:
    """What has become of the files of a run so far.

    ``todo`` is the sizes of those it has to do, by name; ``left`` of them turned out to need nothing.
    """

    operation: Operation
    engine: str
    files: int
    dataset: str
    on_progress: OnProgress | None = None
    todo: dict[str, int] = field(default_factory=dict)
    unchanged: int = 0
    left: int = 0
    rows: int = 0
    bytes_written: int = 0
    failures: list[FileFailure] = field(default_factory=list)
    seen: int = 0
    bytes: int = 0
    bytes_seen: int = 0
    failed_seen: int = 0
    bytes_failed: int = 0
    started: float = field(default_factory=time.monotonic)

    def expect(self, files: Sequence[FoundFile], *, unchanged: int) -> None:
        """Learn what there is to do."""
        self.todo = {each.name: each.size for each in files}
        self.bytes = sum(self.todo.values())
        self.unchanged = unchanged

    def fail(self, name: str, code: str, reason: str) -> None:
        """Count a file that is left as it is."""
        self.failures.append(FileFailure(name, code, reason))
        if name in self.todo:
            self.failed_seen += 1
            self.bytes_failed += self.todo[name]

    def see(self, name: str) -> None:
        """Count a file of which this run has heard the last."""
        self.seen += 1
        self.bytes_seen += self.todo[name]
        if self.on_progress is not None:
            self.on_progress(
                BulkProgress(
                    files=len(self.todo),
                    files_done=self.seen,
                    bytes=self.bytes,
                    bytes_done=self.bytes_seen,
                    failed=len(self.failures),
                    seconds=time.monotonic() - self.started,
                )
            )

    def report(self) -> BulkReport:
        """Return the counts."""
        return BulkReport(
            operation=self.operation,
            dataset=self.dataset,
            engine=self.engine,
            files=self.files,
            done=self.seen - self.failed_seen - self.left,
            unchanged=self.unchanged + self.left,
            rows=self.rows,
            bytes_read=self.bytes_seen - self.bytes_failed,
            bytes_written=self.bytes_written,
            seconds=time.monotonic() - self.started,
            failures=sorted(self.failures, key=lambda each: each.name),
        )
