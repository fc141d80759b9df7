"""What a task looks at again and again."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable

from keystead.errors import KMSError

log = logging.getLogger("keystead.runtime")


async def look_every(
    pause_s: float, look: Callable[[], Awaitable[None]], *, sleep: Callable[[float], Awaitable[None]], what: str
) -> None:
    """Look after each pause, until the task is cancelled; a look that fails is told at the level DEBUG alone.

    Args:
        sleep: of the clock.
        what: is found out by a look, as the log tells it.
    """
    while True:
        await sleep(pause_s)
        try:
            await look()
        except KMSError as exc:
            log.debug("%s is not known yet: %s", what, exc.code)
