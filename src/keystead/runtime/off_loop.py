"""Computing without holding the event loop up."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import threading
import weakref
from collections.abc import Callable
from functools import partial
from queue import SimpleQueue
from typing import Final, ParamSpec, TypeVar

from keystead.runtime import fork

P = ParamSpec("P")
T = TypeVar("T")

OFF_LOOP_BYTES: Final = 256 * 1024
_PRIMITIVES: Final = "cryptography.hazmat.primitives.ciphers.aead"


async def compute(size: int, call: Callable[[], T]) -> T:
    """Run ``call``, which encrypts or hashes ``size`` bytes: here for microseconds' worth, else in a worker thread.

    So it does where ``call`` is the first to load the primitives, which takes tens of milliseconds.
    """
    is_quick = size < OFF_LOOP_BYTES and _PRIMITIVES in sys.modules
    return call() if is_quick else await in_thread(call)


async def in_thread(call: Callable[P, T], *args: P.args, **options: P.kwargs) -> T:
    """Run ``call`` in a worker thread. Where there is none to be had, as at the interpreter's exit, run it here."""
    has_begun = False

    def run() -> T:
        nonlocal has_begun
        has_begun = True
        return call(*args, **options)

    try:
        return await asyncio.to_thread(run)
    except RuntimeError:
        if has_begun:
            raise
        return run()


class Threads:
    """Threads for what takes a core for milliseconds, and the same few for all of it.

    What is called waits in line for one. A thread that has just done the same finds its memory where it was, in the
    processor's caches; many threads that take turns do not. The standard library's pool makes some fifty calls around
    each; this is a line, and a message back.
    """

    def __init__(self, name: str, number: int) -> None:
        self._name = name
        self._number = number
        self._forget()
        fork.in_child(self._forget)

    async def run(self, call: Callable[[], T]) -> T:
        """Return what ``call`` returns; it is made here where there is no thread, as at the interpreter's exit."""
        if self._under_way >= self._begun and self._begun < self._number and not self._begin():
            return call()
        loop = asyncio.get_running_loop()
        waiting: asyncio.Future[T] = loop.create_future()
        self._line.put(partial(_make, call, loop, waiting))
        self._under_way += 1
        try:
            return await waiting
        finally:
            self._under_way -= 1

    def _begin(self) -> bool:
        """Begin another thread, which ends with this object; return whether there is any."""
        name = f"{self._name}_{self._begun}"
        thread = threading.Thread(target=_work, args=(self._line,), name=name, daemon=True)
        with contextlib.suppress(RuntimeError):
            thread.start()
            self._begun += 1
        return self._begun > 0

    def _forget(self) -> None:
        self._line: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._begun = self._under_way = 0
        weakref.finalize(self, self._line.put, None)


def _work(line: SimpleQueue[Callable[[], None] | None]) -> None:
    while (make := line.get()) is not None:
        make()
        # Nothing is held of it while nothing is to be done.
        del make
    line.put(None)


def _make(call: Callable[[], T], loop: asyncio.AbstractEventLoop, waiting: asyncio.Future[T]) -> None:
    """Make a call whose caller has not gone, and tell it; a loop that is closed is told nothing."""
    if waiting.done():
        return
    with contextlib.suppress(RuntimeError):
        try:
            made = call()
        except BaseException as failure:
            loop.call_soon_threadsafe(_fail, waiting, failure)
        else:
            loop.call_soon_threadsafe(_give, waiting, made)


def _give(waiting: asyncio.Future[T], made: T) -> None:
    if not waiting.done():
        waiting.set_result(made)


def _fail(waiting: asyncio.Future[T], failure: BaseException) -> None:
    if not waiting.done():
        waiting.set_exception(failure)
