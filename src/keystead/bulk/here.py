"""The workers of a process that runs tasks for another one: one for each settings file, opened at its first task."""

from __future__ import annotations

import contextlib
import threading
from typing import Final

from keystead import blocking
from keystead.bulk.tasks import Task, results_text
from keystead.bulk.worker import Worker


class Workplace:
    """Opens a manager once a process and not once a task, and closes it when asked to, or at the process's exit."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._workers: dict[str | None, Worker] = {}

    def worker(self, settings: str | None) -> Worker:
        """Return the worker for a settings file, None being what the process's own environment says."""
        with self._lock:
            if settings not in self._workers:
                km = blocking.KeyManager.from_config(settings, background=False, create_store=False)
                try:
                    km.initialize()
                    self._workers[settings] = Worker(km, settings)
                except BaseException:
                    km.close()
                    raise
            return self._workers[settings]

    def close(self, settings: str | None) -> None:
        """Close the manager for a settings file, if it is open."""
        with self._lock:
            worker = self._workers.pop(settings, None)
        if worker is not None:
            worker.km.close()


_here: Final = Workplace()
"""Of this process."""


def run_task(settings: str | None, task: str) -> str:
    """Do a task, both it and its results being JSON. Errors as ``Worker.run`` and ``KeyManager.initialize``."""
    return results_text(_here.worker(settings).run(Task.parse(task)))


def leave(settings: str | None) -> None:
    """Close what ``run_task`` opened."""
    with contextlib.suppress(Exception):
        _here.close(settings)
