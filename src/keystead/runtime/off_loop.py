"""Computing without holding the event loop up."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
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
    processor's caches; many threads that take turns do not.
    """

    def __init__(self, name: str, number: int) -> None:
        self._made = partial(ThreadPoolExecutor, number, name)
        self._pool = self._made()
        fork.in_child(self._forget)

    async def run(self, call: Callable[[], T]) -> T:
        """Return what ``call`` returns; it is made here where there is no thread, as at the interpreter's exit."""
        try:
            waiting = asyncio.get_running_loop().run_in_executor(self._pool, call)
        except RuntimeError:
            return call()
        return await waiting

    def _forget(self) -> None:
        self._pool = self._made()
