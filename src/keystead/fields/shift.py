"""What the workers of a re-encryption share: the way to the event loop, the pace, and the job."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Coroutine, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, TypeVar

from keystead.fields.sealing import WorksOnRows
from keystead.ports import KeyStore, ReencryptionRecord
from keystead.ports.rows import ApplicationRows

T = TypeVar("T")


class Bridge:
    """Runs coroutines on the event loop for threads that wait."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()

    def ask(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run ``coroutine`` and return its result."""
        return self.begin(coroutine).result()

    def begin(self, coroutine: Coroutine[Any, Any, T]) -> Future[T]:
        """Run ``coroutine``, to be waited for later."""
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop)


class Pace:
    """Lets at most so many rows a second begin, over all workers that share it."""

    def __init__(self, rows_per_s: float | None) -> None:
        self._rows_per_s = rows_per_s
        self._lock = threading.Lock()
        self._next = time.monotonic()

    def take(self, rows: int, stop: threading.Event) -> None:
        """Wait until ``rows`` more may begin, or until everything stops."""
        if self._rows_per_s is None:
            return
        with self._lock:
            begins = max(self._next, time.monotonic())
            self._next = begins + rows / self._rows_per_s
        stop.wait(max(0.0, begins - time.monotonic()))


@dataclass(slots=True)
class Shift:
    """What the workers of one job in one process share.

    ``sealer`` and ``rows`` make one for each thread; ``told`` is called on the event loop with each batch's counts, and
    ``failure`` is what it raised.
    """

    job: ReencryptionRecord
    batch_rows: int
    store: KeyStore
    bridge: Bridge
    rows: Callable[[], ApplicationRows]
    sealer: Callable[[ApplicationRows], WorksOnRows]
    pace: Pace
    told: Callable[[Mapping[str, int]], None]
    stop: threading.Event = field(default_factory=threading.Event)
    failure: Exception | None = None
