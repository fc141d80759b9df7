"""What a child of a fork must do before it may go on: one registry of weakly held callbacks.

Registered once with the interpreter, so that objects come and go without leaving a hook behind.
"""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable
from typing import Final

_CALLBACKS: Final[list[weakref.WeakMethod[Callable[[], None]]]] = []


def in_child(callback: Callable[[], None]) -> None:
    """Call the bound method ``callback`` in every child of a fork, for as long as its object lives."""
    _CALLBACKS[:] = [reference for reference in _CALLBACKS if reference() is not None]
    _CALLBACKS.append(weakref.WeakMethod(callback))


def _after_fork_in_child() -> None:
    for reference in list(_CALLBACKS):
        if (callback := reference()) is not None:
            callback()


os.register_at_fork(after_in_child=_after_fork_in_child)
