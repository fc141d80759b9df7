"""A time limit for what hardly ever takes long and is done all the time: one timer for all of it in an event loop.

``asyncio.timeout`` sets a timer of its own each time, which takes longer than much of what it guards.
"""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Final, Self
from weakref import WeakKeyDictionary


class Patience:
    """Ends with TimeoutError what is awaited in a block of it for longer than so many seconds; None for ever.

    To be entered once, as ``asyncio.timeout``, whose rules about cancelling are kept.
    """

    __slots__ = ("_cancelling", "_is_over", "_limit_s", "_task", "_watch", "until")

    def __init__(self, limit_s: float | None) -> None:
        self._limit_s: Final = limit_s
        self._is_over = False
        self._watch: _Watch | None = None

    async def __aenter__(self) -> Self:
        if self._limit_s is not None:
            loop = asyncio.get_running_loop()
            task = asyncio.current_task()
            if task is None:
                raise RuntimeError("patience is for a task")
            self._task, self._cancelling = task, task.cancelling()
            self.until = loop.time() + self._limit_s
            self._watch = _watch(loop, self._limit_s)
            self._watch.begin(self, loop)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, failure: BaseException | None, _: TracebackType | None
    ) -> None:
        if self._watch is None:
            return
        self._watch.end(self)
        if self._is_over and self._task.uncancel() <= self._cancelling and kind is asyncio.CancelledError:
            raise TimeoutError from failure

    def give_up(self) -> None:
        """End what is awaited: its time is over."""
        self._is_over = True
        self._task.cancel()


class _Watch:
    """All blocks of one limit in one event loop, in the order in which their times are over."""

    def __init__(self, limit_s: float) -> None:
        self._limit_s = limit_s
        self._waiting: dict[Patience, None] = {}
        self._has_timer = False

    def begin(self, patience: Patience, loop: asyncio.AbstractEventLoop) -> None:
        self._waiting[patience] = None
        if not self._has_timer:
            self._has_timer = True
            loop.call_later(self._limit_s, self._look)

    def end(self, patience: Patience) -> None:
        self._waiting.pop(patience, None)

    def _look(self) -> None:
        loop = asyncio.get_running_loop()
        self._has_timer, now = False, loop.time()
        for patience in list(self._waiting):
            if patience.until > now:
                self._has_timer = True
                loop.call_later(patience.until - now, self._look)
                return
            del self._waiting[patience]
            patience.give_up()


# A watch does not hold its loop, or neither would ever go.
_watches: Final[WeakKeyDictionary[asyncio.AbstractEventLoop, dict[float, _Watch]]] = WeakKeyDictionary()


def _watch(loop: asyncio.AbstractEventLoop, limit_s: float) -> _Watch:
    of_loop = _watches.get(loop)
    if of_loop is None:
        of_loop = _watches[loop] = {}
    watch = of_loop.get(limit_s)
    if watch is None:
        watch = of_loop[limit_s] = _Watch(limit_s)
    return watch
