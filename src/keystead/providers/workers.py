"""Threads for an SDK that blocks, so that the event loop never does."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from keystead.errors import SystemShutdownError
from keystead.runtime import fork

T = TypeVar("T")


class Workers:
    """A bounded pool of threads that one provider makes its calls in.

    A caller that is cancelled, or whose deadline passes, leaves at once; a call that is under way then ends by the
    timeouts the SDK was given, and one that has not begun never does. A child of a fork makes threads of its own.
    """

    def __init__(self, name: str, *, threads: int = 8) -> None:
        self._name = name
        self._threads = threads
        self._pool: ThreadPoolExecutor | None = None
        self._is_closed = False
        fork.in_child(self._forget)

    async def run(self, call: Callable[[], T]) -> T:
        """Return what ``call`` returns, made in one of the threads.

        Raises:
            SystemShutdownError: the pool was closed.
        """
        if self._is_closed:
            raise SystemShutdownError(f"the provider {self._name} was closed")
        if self._pool is None:
            self._pool = ThreadPoolExecutor(self._threads, thread_name_prefix=f"keystead-{self._name}")
        # What OpenTelemetry calls the current span is in the caller's context.
        inside = contextvars.copy_context()
        return await asyncio.get_running_loop().run_in_executor(self._pool, inside.run, call)

    def close(self) -> None:
        """End the threads as soon as their calls end; idempotent."""
        self._is_closed = True
        if (pool := self._pool) is not None:
            self._pool = None
            pool.shutdown(wait=False, cancel_futures=True)

    def _forget(self) -> None:
        self._pool = None
