"""The one background event loop that synchronous callers share.

It runs in a daemon thread, is made at first use, and is made anew in a child of a fork. At the interpreter's exit it
closes what asked for that, cancels what is left, and ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Coroutine, Iterable
from concurrent.futures import CancelledError, Future
from typing import Any, Final, TypeAlias, TypeVar

from keystead.errors import InvalidInputError, SystemShutdownError
from keystead.runtime import exits, fork
from keystead.runtime.callbacks import Callbacks

T = TypeVar("T")
Closing: TypeAlias = Callable[[], Coroutine[Any, Any, None]]

STOP_WITHIN_S: Final = 5.0
"""How long the interpreter's exit waits for what closes."""


class BackgroundLoop:
    """An event loop in a thread of its own; ``run`` hands it a coroutine and waits for the result."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._closings = Callbacks[Coroutine[Any, Any, None]]()
        self._is_exiting = False
        fork.in_child(self._forget)
        exits.to_close(self._exit)

    @property
    def is_here(self) -> bool:
        """Whether the caller runs on the loop itself, where waiting for it would never end."""
        return threading.current_thread() is self._thread

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run ``coroutine`` on the loop and return its result, or raise what it raised.

        Raises:
            InvalidInputError: called from the loop's own thread, where waiting would never end.
            SystemShutdownError: the loop was stopped meanwhile: the interpreter exits.
        """
        if self.is_here:
            coroutine.close()
            raise InvalidInputError("a blocking call was made from the background loop; await the async one instead")
        future = self._hand_over(coroutine)
        try:
            return future.result()
        except CancelledError:
            raise SystemShutdownError("the background loop was stopped before the call had ended") from None
        finally:
            # An interrupted wait leaves nothing behind; a finished future takes no notice.
            future.cancel()

    def submit(self, coroutine: Coroutine[Any, Any, object]) -> None:
        """Run ``coroutine`` on the loop without waiting for it; callable from any thread, the loop's own included."""
        self._hand_over(coroutine)

    def begin(self, coroutine: Coroutine[Any, Any, T]) -> Future[T]:
        """Run ``coroutine`` on the loop, to be waited for later, elsewhere than on the loop."""
        return self._hand_over(coroutine)

    def at_stop(self, closing: Closing) -> None:
        """Run the bound method ``closing`` before the loop stops, for as long as its object lives."""
        self._closings.add(closing)

    def _exit(self) -> None:
        self._is_exiting = True
        self.stop()

    def stop(self) -> None:
        """Close what asked for it, cancel the rest, and end the thread; the next ``run`` makes another."""
        with self._lock:
            loop, self._loop = self._loop, None
            thread, self._thread = self._thread, None
        if loop is None or thread is None:
            return
        closed = asyncio.run_coroutine_threadsafe(_close(self._closings.alive()), loop)
        # What cannot be closed in time is nothing the exit may wait for.
        with contextlib.suppress(TimeoutError, CancelledError):
            closed.result(STOP_WITHIN_S)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(STOP_WITHIN_S)

    def _hand_over(self, coroutine: Coroutine[Any, Any, T]) -> Future[T]:
        try:
            loop = self._running()
        except SystemShutdownError:
            coroutine.close()
            raise
        return asyncio.run_coroutine_threadsafe(coroutine, loop)

    def _running(self) -> asyncio.AbstractEventLoop:
        with self._lock:
            if self._is_exiting:
                # From now on the interpreter starts no thread, and would say so in an error of its own.
                raise SystemShutdownError("the interpreter exits, and the background loop has been stopped")
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                self._thread = threading.Thread(target=_serve, args=(self._loop,), name="keystead-loop", daemon=True)
                self._thread.start()
            return self._loop

    def _forget(self) -> None:
        self._lock = threading.Lock()
        self._loop = self._thread = None


async def _close(closings: Iterable[Closing]) -> None:
    await asyncio.gather(*(closing() for closing in closings), return_exceptions=True)


def _serve(loop: asyncio.AbstractEventLoop) -> None:
    asyncio.set_event_loop(loop)
    try:
        loop.run_forever()
    finally:
        tasks = asyncio.all_tasks(loop)
        for task in tasks:
            task.cancel()
        loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()


background_loop: Final = BackgroundLoop()
"""Shared by every synchronous face."""
