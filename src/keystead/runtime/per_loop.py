"""One object for each event loop: clients of asyncio SDKs belong to the loop they were made in."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar
from weakref import WeakKeyDictionary

from keystead.runtime import fork

T = TypeVar("T")


class PerLoop(Generic[T]):
    """Makes an object at its first use in each event loop, once however many tasks ask, and closes them all.

    Those of loops that were closed are let go. A child of a fork has none of its parent's; each that it inherits is
    given to ``abandon`` first, for objects that must not even be freed there.
    """

    def __init__(
        self,
        make: Callable[[], Awaitable[T]],
        close: Callable[[T], Awaitable[object]],
        *,
        abandon: Callable[[T], object] | None = None,
    ) -> None:
        self._make = make
        self._close = close
        self._abandon = abandon
        self._made: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Future[T]] = WeakKeyDictionary()
        fork.in_child(self._forget)

    async def get(self) -> T:
        """Return the running loop's object. What failed to be made is made anew by the next call."""
        loop = asyncio.get_running_loop()
        found = self._made.get(loop)
        if found is None:
            self._let_go_of_closed_loops()
            found = self._made[loop] = asyncio.ensure_future(self._make())
            found.add_done_callback(lambda made: self._drop_failed(loop, made))
        # A caller that is cancelled leaves; the others wait for the same object.
        return await asyncio.shield(found)

    async def aclose(self) -> None:
        """Close every loop's object: here, or in its own loop while that runs."""
        here = asyncio.get_running_loop()
        made, self._made = dict(self._made), WeakKeyDictionary()
        for loop, future in made.items():
            if loop is here:
                await _closed(self._close, future)
            elif loop.is_running():
                asyncio.run_coroutine_threadsafe(_closed(self._close, future), loop)

    def _let_go_of_closed_loops(self) -> None:
        # A future holds its loop: without this, loops that come and go would stay for ever.
        for reference in self._made.keyrefs():
            loop = reference()
            if loop is not None and loop.is_closed():
                self._made.pop(loop, None)

    def _drop_failed(self, loop: asyncio.AbstractEventLoop, made: asyncio.Future[T]) -> None:
        if (made.cancelled() or made.exception() is not None) and self._made.get(loop) is made:
            del self._made[loop]

    def _forget(self) -> None:
        if self._abandon is not None:
            for made in self._made.values():
                if made.done() and not made.cancelled() and made.exception() is None:
                    self._abandon(made.result())
        self._made = WeakKeyDictionary()


async def _closed(close: Callable[[T], Awaitable[object]], made: asyncio.Future[T]) -> None:
    """Close an object once it is made; what could not be made needs no closing."""
    with contextlib.suppress(Exception):
        await close(await made)
