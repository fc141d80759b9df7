"""Single flight: callers who ask for the same thing at the same time share one call."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Hashable, Iterator
from contextlib import contextmanager
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class SingleFlight(Generic[T]):
    """Runs one call a key at a time; whoever asks meanwhile waits for the same result or error.

    The call belongs to none of its callers: one that is cancelled leaves, the others still get the result, and only
    when the last has left is the call itself cancelled. Nothing outlives the call, neither result nor failure.
    Event loops do not share flights, and a child of a fork starts with none of its parent's that could ever match.
    """

    def __init__(self) -> None:
        self._flights: dict[tuple[asyncio.AbstractEventLoop, Hashable], Flight[T]] = {}

    def __len__(self) -> int:
        return len(self._flights)

    async def run(self, key: Hashable, call: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Return the result of the flight under ``key``, starting it with ``call`` if there is none."""
        with self.board(key, call) as flight:
            return await asyncio.shield(flight.task)

    @contextmanager
    def board(self, key: Hashable, call: Callable[[], Coroutine[Any, Any, T]]) -> Iterator[Flight[T]]:
        """Give the flight under ``key``, to be waited for without cancelling its task; as ``run`` otherwise."""
        slot = (asyncio.get_running_loop(), key)
        flight = self._flights.get(slot)
        if flight is None:
            flight = self._flights[slot] = Flight(asyncio.ensure_future(call()))
            flight.task.add_done_callback(lambda task: self._land(slot, task))
        flight.passengers += 1
        try:
            yield flight
        finally:
            flight.passengers -= 1
            if flight.passengers == 0 and not flight.task.done():
                self._flights.pop(slot, None)
                flight.task.cancel(flight.given_up_for)

    def _land(self, slot: tuple[asyncio.AbstractEventLoop, Hashable], task: asyncio.Future[T]) -> None:
        flight = self._flights.get(slot)
        if flight is not None and flight.task is task:
            del self._flights[slot]
        if not task.cancelled():
            task.exception()  # marks it as seen: every passenger may have left


class Flight(Generic[T]):
    """A call under way.

    Attributes:
        given_up_for: what the call's cancellation says, should it come to that.
    """

    __slots__ = ("given_up_for", "passengers", "task")

    def __init__(self, task: asyncio.Future[T]) -> None:
        self.task = task
        self.passengers = 0
        self.given_up_for: str | None = None
