"""What runs the tasks of a job: the protocol of engines, and the one that needs no other process.

Every engine passes the same tests (``tests/bulk/test_engines.py``).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from typing import Final, Protocol, TypeAlias

from keystead.bulk.tasks import FileResult, Task
from keystead.bulk.worker import Worker
from keystead.errors import WorkersLostError

OnResult: TypeAlias = Callable[[Task, list[FileResult]], None]

TRIES: Final = 3
"""How many workers may die over one task."""


class BulkEngine(Protocol):
    """Runs tasks on workers."""

    @property
    def name(self) -> str:
        """The word by which the command line knows it."""

    @property
    def workers(self) -> int:
        """How many tasks run at once, as far as is known before ``run``."""

    def run(self, tasks: Iterable[Task], home: Worker, on_result: OnResult, stop: threading.Event) -> None:
        """Run every task once to its end, in any order, and return when that is done, or soon after ``stop`` is set.

        A task whose worker dies is run again, file by file; what workers die over ``TRIES`` times is a result with the
        code ``workers_lost``.

        Args:
            tasks: taken as they are needed, never all at once.
            home: the caller's own worker, and what tells others how to open theirs.
            on_result: called in the caller's thread, once for each task or each of its parts.

        Raises:
            WorkersLostError: there is nobody left to run tasks.
            KMSError: what a worker fails with before it can begin, or ``on_result``.
        """


class Inline:
    """Runs tasks in the calling thread, with the caller's manager."""

    name = "inline"
    workers = 1

    def run(self, tasks: Iterable[Task], home: Worker, on_result: OnResult, stop: threading.Event) -> None:
        """Run the tasks one after the other; errors as ``BulkEngine.run``."""
        for task in tasks:
            if stop.is_set():
                return
            on_result(task, home.run(task))


def lost(task: Task) -> list[FileResult]:
    """Return the results of a task over which too many workers died."""
    told = f"{TRIES} workers died over it: too little memory, or a file that ends whatever reads it"
    return [FileResult(each.name, code=WorkersLostError.code, reason=told) for each in task.files]
