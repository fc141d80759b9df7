"""A child of a fork of the test's own process."""

from __future__ import annotations

import asyncio
import os
import warnings
from collections.abc import Callable
from contextlib import suppress


async def in_child(call: Callable[[], int]) -> int:
    """Return what ``call`` returns in a child, or 99 where it raises."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # other threads run: that is what is under test
        child = os.fork()
    if child == 0:
        code = 99
        with suppress(BaseException):
            code = call()
        os._exit(code)
    _, status = await asyncio.to_thread(os.waitpid, child, 0)
    return os.waitstatus_to_exitcode(status)
