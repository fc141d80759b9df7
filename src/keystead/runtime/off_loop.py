"""Computing without holding the event loop up."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final, TypeVar

T = TypeVar("T")

OFF_LOOP_BYTES: Final = 256 * 1024


async def compute(size: int, call: Callable[[], T]) -> T:
    """Run ``call``, which works through ``size`` bytes: here for microseconds' worth, in a worker thread otherwise."""
    return call() if size < OFF_LOOP_BYTES else await asyncio.to_thread(call)
