"""The interpreter's exit, in three steps: what holds data writes it, what is open is closed, threads end.

``atexit`` calls the latest first, whoever needs whom: the threads of a KMS client, which begin with its first call,
would be gone before the log that asks this KMS to sign its end. What an application registered itself, after it
imported Keystead, is called before all of this.
"""

from __future__ import annotations

import atexit
from collections.abc import Callable
from contextlib import ExitStack
from typing import Final

from keystead.runtime.callbacks import Callbacks

_WRITING: Final = Callbacks[None]()
_CLOSING: Final = Callbacks[None]()
_ENDING: Final = Callbacks[None]()


def to_write(callback: Callable[[], None]) -> None:
    """Call the bound method ``callback`` at the exit, while everything still works."""
    _WRITING.add(callback)


def to_close(callback: Callable[[], None]) -> None:
    """Call it when everything is written: it closes what runs on threads that are still there."""
    _CLOSING.add(callback)


def to_end(callback: Callable[[], None]) -> None:
    """Call it last: it ends threads, or what only they may end."""
    _ENDING.add(callback)


@atexit.register
def _exit() -> None:
    # Each is called even where the one before has failed, which the interpreter prints.
    with ExitStack() as last:
        for step in (_ENDING, _CLOSING, _WRITING):
            last.callback(step.call)
