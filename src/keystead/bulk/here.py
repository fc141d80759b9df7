"""The workers of a process that runs tasks for others: one for each run, opened at its first task."""

from __future__ import annotations

import contextlib
import secrets
import threading
from dataclasses import dataclass, field
from typing import Final

from keystead import blocking
from keystead.bulk.tasks import Task, results_text
from keystead.bulk.worker import Worker


@dataclass(frozen=True, slots=True)
class Crew:
    """The workers of one run, in every process that has some.

    ``settings`` is the file by which they open their managers, None being what the environment of each says.
    """

    settings: str | None
    name: str = field(default_factory=lambda: secrets.token_hex(8))


class Workplace:
    """Opens a manager once for each crew and process, not once a task, and closes it when the crew leaves.

    What no crew took leave of is closed at the process's exit.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._workers: dict[str, Worker] = {}

    def worker(self, crew: Crew) -> Worker:
        """Return the worker of a crew in this process."""
        with self._lock:
            if crew.name not in self._workers:
                km = blocking.KeyManager.from_config(crew.settings, background=False, create_store=False)
                try:
                    km.initialize()
                    self._workers[crew.name] = Worker(km, crew.settings)
                except BaseException:
                    km.close()
                    raise
            return self._workers[crew.name]

    def close(self, crew: Crew) -> None:
        """Close the manager of a crew, if it is open."""
        with self._lock:
            worker = self._workers.pop(crew.name, None)
        if worker is not None:
            worker.km.close()


_here: Final = Workplace()
"""Of this process."""


def run_task(crew: Crew, task: str) -> str:
    """Do a task, both it and its results being JSON. Errors as ``Worker.run`` and ``KeyManager.initialize``."""
    return results_text(_here.worker(crew).run(Task.parse(task)))


def leave(crew: Crew) -> None:
    """Close what ``run_task`` opened."""
    with contextlib.suppress(Exception):
        _here.close(crew)
