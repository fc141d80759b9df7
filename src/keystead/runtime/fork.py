"""What is done around a fork, in the child above all."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from typing import Final

from keystead.runtime.callbacks import Callbacks

_CHILDREN: Final = Callbacks[None]()
_BEFORE: Final = Callbacks[None]()
_PARENTS: Final = Callbacks[None]()


def in_child(callback: Callable[[], None]) -> None:
    """Call the bound method ``callback`` in every child of a fork, for as long as its object lives."""
    _CHILDREN.add(callback)


def never_free(thing: object) -> None:
    """Keep an object for as long as this process lives, its exit included: for what only the parent may let go of."""
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(thing))


def around(before: Callable[[], None], after: Callable[[], None]) -> None:
    """Call the bound methods ``before`` each fork and ``after`` it in the parent, in the thread that forks."""
    _BEFORE.add(before)
    _PARENTS.add(after)


os.register_at_fork(before=_BEFORE.call, after_in_parent=_PARENTS.call, after_in_child=_CHILDREN.call)
