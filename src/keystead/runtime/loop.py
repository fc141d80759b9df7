"""The one background event loop that synchronous callers share.

It runs in a daemon thread, is made at first use, and is made anew in a child of a fork.
"""

from __future__ import annotations

import asyncio
import atexit
import threading
from collections.abc import Coroutine
from typing import Any, Final, TypeVar

from keystead.errors import InvalidInputError
from keystead.runtime import fork

T = TypeVar("T")


class BackgroundLoop:
    """An event loop in a thread of its own; ``run`` hands it a coroutine and waits for the result."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        fork.in_child(self._forget)
        atexit.register(self.stop)

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run ``coroutine`` on the loop and return its result, or raise what it raised.

        Raises:
            InvalidInputError: called from the loop's own thread, where waiting would never end.
        """
        loop = self._running()
        if threading.current_thread().name == _THREAD_NAME:
            coroutine.close()
            raise InvalidInputError("a blocking call was made from the background loop; await the async one instead")
        future = asyncio.run_coroutine_threadsafe(coroutine, loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def stop(self) -> None:
        """Stop the loop; the next ``run`` makes another."""
        with self._lock:
            loop, self._loop = self._loop, None
        if loop is not None:
            loop.call_soon_threadsafe(loop.stop)

    def _running(self) -> asyncio.AbstractEventLoop:
        with self._lock:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                threading.Thread(target=_serve, args=(self._loop,), name=_THREAD_NAME, daemon=True).start()
            return self._loop

    def _forget(self) -> None:
        self._lock = threading.Lock()
        self._loop = None


def _serve(loop: asyncio.AbstractEventLoop) -> None:
    asyncio.set_event_loop(loop)
    try:
        loop.run_forever()
    finally:
        loop.close()


_THREAD_NAME: Final = "keystead-loop"

background_loop: Final = BackgroundLoop()
"""Shared by every synchronous face."""
