"""Registries of weakly held callbacks.

One is registered with the interpreter once, so that objects come and go without leaving a hook behind.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from contextlib import ExitStack
from itertools import count
from typing import Final, Generic, TypeVar

R = TypeVar("R")

_PRUNE_FROM: Final = 256


class Callbacks(Generic[R]):
    """Bound methods, each kept for as long as its object lives.

    Adding needs no lock, and none gets lost: at a fork one that did would repeat nonces.
    """

    def __init__(self) -> None:
        self._callbacks: dict[int, weakref.WeakMethod[Callable[[], R]]] = {}
        self._numbers = count()
        self._prune_at = _PRUNE_FROM

    def __len__(self) -> int:
        return len(self._callbacks)

    def add(self, callback: Callable[[], R]) -> None:
        """Keep the bound method ``callback``."""
        self._callbacks[next(self._numbers)] = weakref.WeakMethod(callback)
        if len(self._callbacks) >= self._prune_at:
            # Over a list of the numbers, which is drawn up in one piece: to list pairs allocates, which may collect
            # garbage, and then another thread or a finalizer adds to the dictionary that is being gone through.
            for number in list(self._callbacks):
                reference = self._callbacks.get(number)
                if reference is not None and reference() is None:
                    self._callbacks.pop(number, None)
            # Twice what is alive: the cost of pruning stays in proportion to the number of registrations.
            self._prune_at = max(_PRUNE_FROM, 2 * len(self._callbacks))

    def alive(self) -> list[Callable[[], R]]:
        """Return those whose objects live, in the order they came."""
        return [callback for reference in list(self._callbacks.values()) if (callback := reference()) is not None]

    def call(self) -> None:
        """Call them all, even where one fails: the next may be what keeps nonces from repeating."""
        with ExitStack() as last:
            for callback in reversed(self.alive()):
                last.callback(callback)
