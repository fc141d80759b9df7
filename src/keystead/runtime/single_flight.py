"""Single flight: callers who ask for the same thing at the same time share one call."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Hashable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import islice
from typing import Any, Final, Generic, TypeVar

from keystead.runtime.handover import wake, woken

T = TypeVar("T")

_A_TURN: Final = 4
"""How many go on in one turn of the loop: each has a fraction of a millisecond to do with what it waited for."""


class SingleFlight(Generic[T]):
    """Runs one call a key at a time; whoever asks meanwhile waits for the same result or error.

    The call belongs to none of its callers: one that is cancelled leaves, the others still get the result, and only
    when the last has left is the call itself cancelled. Nothing outlives the call, neither result nor failure.
    Event loops do not share flights, and a child of a fork starts with none of its parent's that could ever match.
    A hundred who waited for one call go on a few in each turn of the loop, which others get their turns of meanwhile.
    """

    def __init__(self) -> None:
        self._flights: dict[tuple[asyncio.AbstractEventLoop, Hashable], Flight[T]] = {}

    def __len__(self) -> int:
        return len(self._flights)

    async def run(self, key: Hashable, call: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Return the result of the flight under ``key``, starting it with ``call`` if there is none."""
        with self.board(key, call) as flight:
            await flight.landed()
            return flight.task.result()

    @contextmanager
    def board(self, key: Hashable, call: Callable[[], Coroutine[Any, Any, T]]) -> Iterator[Flight[T]]:
        """Give the flight under ``key``, to be waited for without cancelling its task; as ``run`` otherwise."""
        slot = (asyncio.get_running_loop(), key)
        flight = self._flights.get(slot)
        if flight is None:
            flight = self._flights[slot] = Flight(call, partial(self._forget, slot))
        flight.passengers += 1
        try:
            yield flight
        finally:
            flight.passengers -= 1
            if flight.passengers == 0 and not flight.task.done():
                self._flights.pop(slot, None)
                flight.task.cancel(flight.given_up_for)

    def _forget(self, slot: tuple[asyncio.AbstractEventLoop, Hashable], flight: Flight[T]) -> None:
        if self._flights.get(slot) is flight:
            del self._flights[slot]


class Flight(Generic[T]):
    """A call under way.

    Attributes:
        given_up_for: what the call's cancellation says, should it come to that.
    """

    __slots__ = ("_forget", "_has_landed", "_waiting", "given_up_for", "passengers", "task")

    def __init__(self, call: Callable[[], Coroutine[Any, Any, T]], forget: Callable[[Flight[T]], None]) -> None:
        self.passengers = 0
        self.given_up_for: str | None = None
        self._forget = forget
        self._has_landed = False
        self._waiting: dict[asyncio.Future[None], None] = {}
        self.task: asyncio.Future[T] = asyncio.ensure_future(self._fly(call))
        # Once more: a task that is cancelled before its first step never was in ``_fly``.
        self.task.add_done_callback(self._is_over)

    async def landed(self, within_s: float | None = None) -> bool:
        """Wait for the call without cancelling it, for so many seconds at most, and return whether it is over."""
        if not self.task.done():
            waiter = asyncio.get_running_loop().create_future()
            self._waiting[waiter] = None
            try:
                await (waiter if within_s is None else woken(waiter, within_s))
            finally:
                self._waiting.pop(waiter, None)
        return self.task.done()

    async def _fly(self, call: Callable[[], Coroutine[Any, Any, T]]) -> T:
        try:
            return await call()
        finally:
            # Those who wait go on in the turn after this one, when the task is done; its callbacks cost one more.
            self._land()

    def _is_over(self, task: asyncio.Future[T]) -> None:
        if not task.cancelled():
            task.exception()  # marks it as seen: every passenger may have left
        if not self._has_landed:
            self._land()

    def _land(self) -> None:
        self._has_landed = True
        self._forget(self)
        self._wake()

    def _wake(self) -> None:
        """Have some of those who wait go on, and the others in the next turns of the loop."""
        for waiter in tuple(islice(self._waiting, _A_TURN)):
            del self._waiting[waiter]
            wake(waiter)
        if self._waiting:
            asyncio.get_running_loop().call_soon(self._wake)
