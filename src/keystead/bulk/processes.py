"""An engine of processes on this machine."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.connection import wait as wait_for
from typing import Final

from keystead.bulk.engines import TRIES, OnResult, lost
from keystead.bulk.here import Crew, run_task
from keystead.bulk.tasks import Task, parse_results
from keystead.bulk.worker import Worker
from keystead.errors import InvalidInputError

LOOK_S: Final = 1.0
"""How long a stop may go unseen."""


class ProcessPool:
    """Runs tasks in processes of its own, each of which opens a manager of the same store.

    They are started anew, not forked: a script that uses it keeps what it runs under ``if __name__ == "__main__"``.

    Args:
        workers: how many; as many as this process may use processors, unless given.
    """

    name = "processes"

    def __init__(self, workers: int | None = None) -> None:
        if workers is not None and workers < 1:
            raise InvalidInputError("workers is above zero")
        self.workers = workers or len(os.sched_getaffinity(0))

    def run(self, tasks: Iterable[Task], home: Worker, on_result: OnResult, stop: threading.Event) -> None:
        """Run the tasks; errors as ``BulkEngine.run``."""
        left, crew = iter(tasks), Crew(home.settings)
        suspects: deque[Task] = deque()
        while not stop.is_set():
            self._run_together(left, crew, on_result, stop, suspects)
            if not suspects:
                return
            self._run_alone(crew, on_result, stop, suspects)

    def _run_together(
        self, tasks: Iterator[Task], crew: Crew, on_result: OnResult, stop: threading.Event, suspects: deque[Task]
    ) -> None:
        """Run tasks until there is none, or a worker dies: over one of those under way, and nobody tells which."""
        under_way: dict[Future[str], Task] = {}
        with _pool(self.workers) as pool:
            try:
                while not stop.is_set():
                    # One more than workers: nobody waits while a result is committed here.
                    while len(under_way) <= self.workers and (task := next(tasks, None)) is not None:
                        try:
                            under_way[pool.submit(run_task, crew, task.text())] = task
                        except BrokenProcessPool:
                            suspects.extend(task.split())
                            raise
                    if not under_way:
                        return
                    done, _ = wait(under_way, timeout=LOOK_S, return_when=FIRST_COMPLETED)
                    for future in done:
                        results = parse_results(future.result())
                        on_result(under_way.pop(future), results)
            except BrokenProcessPool:
                for future, task in under_way.items():
                    if future.done() and future.exception() is None:
                        on_result(task, parse_results(future.result()))
                    else:
                        suspects.extend(task.split())
            finally:
                pool.shutdown(wait=False, cancel_futures=True)

    def _run_alone(self, crew: Crew, on_result: OnResult, stop: threading.Event, suspects: deque[Task]) -> None:
        """Run tasks over which a worker may have died, one at a time: what dies now dies over that one."""
        deaths = 0
        while suspects and not stop.is_set():
            try:
                with _pool(1) as pool:
                    while suspects and not stop.is_set():
                        task = suspects[0]
                        results = parse_results(pool.submit(run_task, crew, task.text()).result())
                        on_result(suspects.popleft(), results)
                        deaths = 0
            except BrokenProcessPool:
                deaths += 1
                if deaths == TRIES:
                    on_result(task, lost(suspects.popleft()))
                    deaths = 0


def _pool(workers: int) -> ProcessPoolExecutor:
    context = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(workers, mp_context=context, initializer=_begin)


def _begin() -> None:
    """End with whoever started this process: a pool's workers otherwise outlive a kill of it, and wait for ever."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    parent = multiprocessing.parent_process()
    assert parent is not None  # noqa: S101 - it was started by multiprocessing

    def watch() -> None:
        wait_for([parent.sentinel])
        os._exit(1)

    threading.Thread(target=watch, name="keystead-parent", daemon=True).start()
