"""Whether the service is open: it is opened, again and again until it is, while the process listens already."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from datetime import datetime
from typing import Any, Final, Generic, Protocol, TypeVar

from keystead.errors import KMSError
from keystead.ports import Clock, Random
from keystead.providers.retry import pause_s
from keystead.server.causes import STARTING, STOPPING, Cause, cause_of, may_pass

log = logging.getLogger("keystead.server")

FAILED: Final = 3
"""Exit status of a process whose service can never open; no supervisor starts another in its place."""


POLL_S: Final = 0.05
"""How often a service that stops looks whether its requests are done."""


class Running:
    """How many requests run at the same time; a context for each."""

    def __init__(self) -> None:
        self.number = 0

    def __enter__(self) -> None:
        self.number += 1

    def __exit__(self, *given: object) -> None:
        self.number -= 1


class Opened(Protocol):
    """What an open service is asked."""

    async def causes(self) -> list[Cause]:
        """Return what stands in the way of serving."""


T = TypeVar("T", bound=Opened)


class Standing(Generic[T]):
    """A service on its way: starting, open, stopping.

    Args:
        opening: opens the service, for as long as the context lasts; entered anew for each attempt.

    Attributes:
        cause: why it is not open yet.
        service: the open service; None before.
        failure: why it can never open, where that is so.
        is_stopping: whether whoever sends requests here should send them elsewhere.
    """

    def __init__(
        self, opening: Callable[[], AbstractAsyncContextManager[T]], clock: Clock, random: Random = os.urandom
    ) -> None:
        self._opening = opening
        self._clock = clock
        self._random = random
        self.cause = STARTING
        self._open = AsyncExitStack()
        self._running = self._before = Running()
        self.service: T | None = None
        self.failure: Exception | None = None
        self.is_stopping = False

    def now(self) -> datetime:
        """Return the time."""
        return self._clock.now()

    def monotonic(self) -> float:
        """Return the time that only runs forward, in seconds."""
        return self._clock.monotonic()

    async def causes(self) -> list[Cause]:
        """Return what stands in the way of serving, now: nothing where it serves."""
        if self.is_stopping:
            return [STOPPING]
        return [self.cause] if self.service is None else await self.service.causes()

    async def open(self) -> T:
        """Open the service, however long that takes.

        Between two attempts there is a pause of two seconds at most, drawn at random: nodes that wait for the same
        database do not come all at once.

        Raises:
            Exception: why it can never open; it is kept as ``failure``.
        """
        failures = 0
        while True:
            stack = AsyncExitStack()
            try:
                service = await stack.enter_async_context(self._opening())
            except Exception as exc:
                if not may_pass(exc):
                    self.failure = exc
                    raise
                cause = cause_of(exc)
                if cause != self.cause:
                    log.warning("the service is not open yet, and tries again: %s", exc)
                self.cause = cause
            else:
                self._open, self.service = stack, service
                log.info("the service is open")
                return service
            failures += 1
            await self._clock.sleep(pause_s(failures, self._random))

    @property
    def running(self) -> Running:
        """The context that a request runs in."""
        return self._running

    def stop(self) -> None:
        """Say from now on that the service stops; what comes all the same is answered."""
        self.is_stopping = True
        self._before, self._running = self._running, Running()

    async def drain(self, *, least_s: float, most_s: float) -> None:
        """Wait until the requests that ran when ``stop`` was called are done: so long at least, and so long at most."""
        begun = self._clock.monotonic()
        while (waited_s := self._clock.monotonic() - begun) < max(least_s, most_s if self._before.number else 0.0):
            await self._clock.sleep(min(POLL_S, max(least_s, most_s) - waited_s))

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[asyncio.Task[T]]:
        """Open the service beside what the caller does, and close it at the end; gives the task that opens it."""
        task = asyncio.create_task(self.open(), name="keystead-opening")
        try:
            yield task
        finally:
            self.is_stopping = True
            task.cancel()
            await asyncio.wait({task})
            self.service = None
            await self._open.aclose()


def end_process(task: asyncio.Task[Any]) -> None:
    """End the process where the service can never open; for a server that has nothing else to do.

    Raises:
        SystemExit: with the status ``FAILED``; the event loop passes it on.
    """
    if task.cancelled() or (failure := task.exception()) is None:
        return
    is_ours = isinstance(failure, KMSError)
    log.error(
        "the service cannot open: %s", failure if is_ours else "unexpected", exc_info=None if is_ours else failure
    )
    raise SystemExit(FAILED)
