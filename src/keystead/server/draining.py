"""SIGTERM: the service says at once that it stops, and the server stops when the requests that run are done."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from keystead.server.standing import Standing

MOST_S: Final = 5.0
"""How long the server goes on listening while requests run; those that take longer are finished after that."""


@contextmanager
def draining(standing: Standing[Any], *, least_s: float = 0.0) -> Iterator[None]:
    """Take SIGTERM while the block runs, and pass it on to whoever has taken it until then: later, or when it repeats.

    A server closes its sockets first, and whoever asks it whether it is ready finds nobody. So nobody who balances load
    is told, and what he still sends is refused.

    Args:
        least_s: how long the server goes on listening although no request runs.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    loop = asyncio.get_running_loop()
    before = signal.getsignal(signal.SIGTERM) or signal.SIG_DFL
    tasks: set[asyncio.Task[None]] = set()

    def pass_on() -> None:
        signal.signal(signal.SIGTERM, before)
        signal.raise_signal(signal.SIGTERM)

    async def drain() -> None:
        await standing.drain(least_s=least_s, most_s=MOST_S)
        pass_on()

    def take(*given: object) -> None:
        if standing.is_stopping:
            pass_on()
            return
        standing.stop()
        loop.call_soon_threadsafe(lambda: tasks.add(loop.create_task(drain())))

    signal.signal(signal.SIGTERM, take)
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        if signal.getsignal(signal.SIGTERM) is take:
            signal.signal(signal.SIGTERM, before)
