"""Registries of weakly held callbacks.

One is registered with the interpreter once, so that objects come and go without leaving a hook behind.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from itertools import count
from typing import Final

_PRUNE_FROM: Final = 256


class Callbacks:
    """Bound methods, each called for as long as its object lives.

    Adding needs no lock: a registration that got lost would repeat nonces.
    """

    def __init__(self) -> None:
        self._callbacks: dict[int, weakref.WeakMethod[Callable[[], None]]] = {}
        self._numbers = count()
        self._prune_at = _PRUNE_FROM

    def __len__(self) -> int:
        return len(self._callbacks)

    def add(self, callback: Callable[[], None]) -> None:
        """Call ``callback``, a bound method, whenever the rest is called."""
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

    def call(self) -> None:
        """Call them all, even where one fails: the next may be what keeps nonces from repeating."""
        failures: list[Exception] = []
        for reference in list(self._callbacks.values()):
            if (callback := reference()) is not None:
                try:
                    callback()
                except Exception as exc:
                    failures.append(exc)
        if failures:
            raise failures[0]  # which the interpreter prints, and goes on
