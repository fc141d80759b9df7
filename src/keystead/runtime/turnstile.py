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
        self._queues: WeakKeyDictionary[asyncio.AbstractEventLoop, deque[asyncio.Future[None]]] = WeakKeyDictionary()

    async def go_through(self) -> None:
        """Wait for the next turn that nobody has."""
        loop = asyncio.get_running_loop()
        queue = self._queues.get(loop)
        if queue is None:
            self._queues[loop] = deque()
            loop.call_soon(self._turn, loop)
        else:
            waiter = loop.create_future()
            queue.append(waiter)
            await waiter

    def _turn(self, loop: asyncio.AbstractEventLoop) -> None:
        queue = self._queues[loop]
        while queue and queue[0].done():  # cancelled
            queue.popleft()
        if queue:
            queue.popleft().set_result(None)
            loop.call_soon(self._turn, loop)
        else:
            del self._queues[loop]
