"""Counting, and dying at, every point where a process gives control away: SQL statements, commits, awaits.

Statements and commits are SQLAlchemy's events. Awaits are seen by driving every task of the loop by hand: a point when
it suspends, and one when it goes on.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Generator
from typing import Any, Final, TypeVar

from sqlalchemy import Engine, event

T = TypeVar("T")

STATEMENT: Final = "statements"
COMMIT: Final = "commits"
AWAIT: Final = "awaits"


class CrashPoints:
    """Counts points once ``arm`` was called, tells ``at_each`` of every one, and kills the process at ``fatal``.

    ``fatal`` of 0 only counts.
    """

    def __init__(self, fatal: int, at_each: Callable[[], None]) -> None:
        self.kinds: Counter[str] = Counter()
        self._fatal = fatal
        self._at_each = at_each
        self._is_armed = False

    @property
    def total(self) -> int:
        """How many points there were."""
        return self.kinds.total()

    async def armed(self, action: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Run ``action`` as a task with every point armed."""
        event.listen(Engine, "before_cursor_execute", self._at_statement)
        event.listen(Engine, "after_cursor_execute", self._at_statement)
        event.listen(Engine, "commit", self._at_commit)
        loop = asyncio.get_running_loop()
        loop.set_task_factory(self._new_task)
        self._is_armed = True
        try:
            return await loop.create_task(action())
        finally:
            self._is_armed = False
            loop.set_task_factory(None)

    def _new_task(
        self, loop: asyncio.AbstractEventLoop, coroutine: Coroutine[Any, Any, T] | Generator[Any, None, T], **names: Any
    ) -> asyncio.Task[T]:
        async def driven() -> T:
            return await _Stepped(coroutine, self._at_await)

        return asyncio.Task(driven(), loop=loop, **names)

    def _at_statement(self, *arguments: object) -> None:
        self._reach(STATEMENT)

    def _at_commit(self, connection: object) -> None:
        self._reach(COMMIT)

    def _at_await(self) -> None:
        self._reach(AWAIT)

    def _reach(self, kind: str) -> None:
        if not self._is_armed:
            return
        self.kinds[kind] += 1
        self._at_each()
        if self.total == self._fatal:
            os.kill(os.getpid(), signal.SIGKILL)


class _Stepped(Awaitable[T]):
    """A coroutine driven by hand, so that each of its suspensions is seen."""

    def __init__(self, coroutine: Any, at_await: Callable[[], None]) -> None:
        self._coroutine = coroutine
        self._at_await = at_await

    def __await__(self) -> Generator[Any, Any, T]:
        step, argument = self._coroutine.send, None
        while True:
            try:
                waiting = step(argument)
            except StopIteration as done:
                value: T = done.value
                return value
            self._at_await()
            try:
                argument = yield waiting
                step = self._coroutine.send
            except BaseException as exc:
                step, argument = self._coroutine.throw, exc
            self._at_await()
