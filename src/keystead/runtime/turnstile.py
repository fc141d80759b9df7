"""A turnstile before work that takes the event loop a while to begin: one goes through in each turn of the loop."""

from __future__ import annotations

import asyncio
from collections import deque
from weakref import WeakKeyDictionary


class Turnstile:
    """Lets one caller through in each turn of the running loop, in the order in which they came.

    Those who come one at a time do not wait. Of a hundred who come together, which a service's callers do once they
    have waited for one and the same thing, each begins in a turn of its own: the loop does what else is due between
    them, and what they wait for does not come back to all of them at once.
    """

    def __init__(self) -> None:
        self._gates: WeakKeyDictionary[asyncio.AbstractEventLoop, _Gate] = WeakKeyDictionary()

    async def go_through(self) -> None:
        """Wait for the next turn that nobody has."""
        loop = asyncio.get_running_loop()
        gate = self._gates.get(loop)
        if gate is None:
            gate = self._gates[loop] = _Gate()
        if gate.is_taken:
            waiter = loop.create_future()
            gate.waiting.append(waiter)
            await waiter
        else:
            gate.is_taken = True
            loop.call_soon(gate.turn)


class _Gate:
    """The turnstile of one loop."""

    __slots__ = ("is_taken", "waiting")

    def __init__(self) -> None:
        self.is_taken = False
        self.waiting: deque[asyncio.Future[None]] = deque()

    def turn(self) -> None:
        """Let the next one through, in a turn of the loop that nobody has had yet."""
        while self.waiting and self.waiting[0].done():  # cancelled
            self.waiting.popleft()
        if self.waiting:
            self.waiting.popleft().set_result(None)
            asyncio.get_running_loop().call_soon(self.turn)
        else:
            self.is_taken = False
