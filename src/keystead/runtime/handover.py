"""A call that another thread makes, and whose outcome goes back to the event loop it came from.

What an executor's future does for the same costs twice as much, and a call to a KMS has more than one such step.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Handover(Generic[T]):
    """Made in the loop; ``make`` and ``deliver`` are for the other thread, ``refuse`` for any.

    Attributes:
        future: done when the outcome is there, or when the caller does not want it any more.
        has_begun: whether the call is under way, or over.
        has_arrived: whether the outcome is there, and is wanted.
    """

    __slots__ = ("_call", "_context", "_loop", "_outcome", "future", "has_arrived", "has_begun")

    def __init__(self, call: Callable[[], T]) -> None:
        self._call = call
        # What OpenTelemetry calls the current span is in the caller's context.
        self._context = contextvars.copy_context()
        self._loop = asyncio.get_running_loop()
        self._outcome: tuple[T | None, BaseException | None] = None, None
        self.future: asyncio.Future[None] = self._loop.create_future()
        self.has_arrived = self.has_begun = False

    async def outcome(self) -> T:
        """Wait for the call, and return or raise what it did; cancelled before it began, it is never made."""
        await self.future
        return self.result()

    async def arrives(self, within_s: float) -> bool:
        """Wait for so many seconds at most, and return whether the outcome is there; too late, it is not wanted."""
        await woken(self.future, within_s)
        return self.has_arrived

    def result(self) -> T:
        """Return or raise what the call did, once ``future`` is done."""
        (result, failure), self._outcome = self._outcome, (None, None)
        if failure is None:
            return result  # type: ignore[return-value]  # there is one of the two
        try:
            raise failure
        finally:
            del failure  # which holds this frame

    def make(self) -> bool:
        """Make the call in this thread, unless nobody waits for it; return whether it was made."""
        if self.future.done():
            return False
        self.has_begun = True
        try:
            self._outcome = self._context.run(self._call), None
        except BaseException as exc:
            self._outcome = None, exc
        return True

    def deliver(self) -> None:
        """Tell the caller that the outcome is there."""
        with contextlib.suppress(RuntimeError):  # its loop has been closed
            self._loop.call_soon_threadsafe(self._arrive)

    def refuse(self, failure: Exception) -> None:
        """Fail a call that has not begun."""
        self._outcome = None, failure
        self.deliver()

    def _arrive(self) -> None:
        if self.future.done():
            self._outcome = None, None
        else:
            self.has_arrived = True
            self.future.set_result(None)


async def woken(waiter: asyncio.Future[None], within_s: float) -> None:
    """Wait until somebody wakes ``waiter``, for so many seconds at most."""
    timer = waiter.get_loop().call_later(within_s, wake, waiter)
    try:
        await waiter
    finally:
        timer.cancel()


def wake(waiter: asyncio.Future[None]) -> None:
    """Let go on who waits, unless it has left."""
    if not waiter.done():
        waiter.set_result(None)
