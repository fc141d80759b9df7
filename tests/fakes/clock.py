"""A clock that only moves when a test moves it."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

START = datetime(2030, 1, 1, tzinfo=UTC)


class FakeClock:
    """Wall and monotonic time under a test's control; fits ``keystead.ports.Clock``.

    ``instant`` (the default): ``sleep`` moves both times on by what it was asked to wait, and returns at once.
    Otherwise sleepers stay asleep until ``advance`` passes their time, which is what a background loop needs.
    """

    def __init__(self, now: datetime = START, *, instant: bool = True) -> None:
        self.instant = instant
        self.slept: list[float] = []
        self._now = now
        self._monotonic = 1000.0
        self._sleepers: list[tuple[float, asyncio.Future[None]]] = []

    def now(self) -> datetime:
        """Return the wall time, aware UTC."""
        return self._now

    def monotonic(self) -> float:
        """Return seconds that never go back."""
        return self._monotonic

    def set(self, now: datetime) -> None:
        """Set the wall time alone, as an operator or NTP would; it may go back."""
        self._now = now

    def advance(self, step: float | timedelta) -> None:
        """Move both times on by ``step`` (seconds, or a timedelta) and wake the sleepers whose time has come."""
        seconds = step.total_seconds() if isinstance(step, timedelta) else step
        self._now += timedelta(seconds=seconds)
        self._monotonic += seconds
        waiting = []
        for due, future in self._sleepers:
            if future.done():
                continue
            if due <= self._monotonic:
                future.get_loop().call_soon_threadsafe(_wake, future)
            else:
                waiting.append((due, future))
        self._sleepers = waiting

    def wake(self, step: float) -> None:
        """Move on by ``step`` if anything sleeps; what is awake finishes first, as it would with time to spare."""
        if any(not future.done() for _, future in self._sleepers):
            self.advance(step)

    async def sleep(self, seconds: float) -> None:
        """Wait ``seconds`` of this clock; always lets other tasks run once."""
        self.slept.append(seconds)
        if self.instant:
            self.advance(seconds)
            await asyncio.sleep(0)
            return
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._sleepers.append((self._monotonic + seconds, future))
        await future


def _wake(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
