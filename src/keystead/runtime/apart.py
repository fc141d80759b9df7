"""A call that blocks, in a thread of its own: one that hangs is missed nowhere else, nor at the exit."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeVar

from keystead.runtime.handover import Handover

T = TypeVar("T")


async def apart(name: str, call: Callable[[], T], within_s: float) -> T:
    """Return or raise what a call did.

    Args:
        name: of the thread.

    Raises:
        TimeoutError: it takes longer; it goes on by itself.
        RuntimeError: the system gives no thread.
    """
    handover = Handover(call)

    def run() -> None:
        handover.make()
        handover.deliver()

    threading.Thread(target=run, name=name, daemon=True).start()
    if not await handover.arrives(within_s):
        raise TimeoutError
    return handover.result()
