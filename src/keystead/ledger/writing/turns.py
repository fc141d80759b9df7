"""Turns at what a log is in memory: one at a time, none within another of the same thread, and none left halfway.

A signal handler, or ``__del__`` when garbage is collected, runs in whatever thread there is, between any two steps of
it, and may log. The lock it would wait for is its own thread's: so a lock is taken again by who has it, and a turn is
not.
"""

from __future__ import annotations

from threading import Condition, RLock, get_ident
from types import TracebackType
from typing import Final

from keystead.errors import KMSError, StorageOperationError

_DEPTH: Final = 16
"""Calls that one turn needs at most: a stack that has no room for them ends no turn halfway."""


class Turn:
    """Taken with its lock held: ``with turn.lock, turn:``.

    Args:
        name: of the log.
        breaks: whether a turn that is left by anything but an error of Keystead's own leaves things halfway.

    Attributes:
        lock: is entered by itself: no exception of a handler's comes between its taking and its release.

    Raises:
        StorageOperationError: the turn is this thread's already, or an earlier one was left halfway.
    """

    def __init__(self, name: str, *, breaks: bool) -> None:
        self.lock = RLock()
        self.is_broken = False
        self._name = name
        self._breaks = breaks
        self._holder: int | None = None
        self._held = Condition(self.lock)

    def settle(self) -> None:
        """End a turn that this thread was interrupted in while leaving it: called before the lock is taken."""
        if self.is_interrupted and not self.is_locked_here:
            self._holder, self.is_broken = None, self._breaks

    @property
    def is_locked_here(self) -> bool:
        """Whether this thread has the lock already."""
        try:
            self._held.notify(0)
        except RuntimeError:
            return False
        return True

    @property
    def is_interrupted(self) -> bool:
        """Whether this code runs within a turn of its own thread: as what interrupted it."""
        return self._holder == get_ident()

    def __enter__(self) -> None:
        if self._breaks:
            _require_depth(_DEPTH)
        if self._holder is not None:
            if self.is_interrupted:
                raise self._in_use()
            # Who had it is gone from there, and was interrupted while leaving.
            self.is_broken = self._breaks
        if self.is_broken:
            self.require_whole()
        self._holder = get_ident()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None and self._breaks and not issubclass(kind, KMSError):
            self.is_broken = True
        self._holder = None

    def require_free(self) -> None:
        """Settle, and raise ``StorageOperationError`` where this code interrupted its own thread with the lock taken.

        Called before another thread is waited for: that one may need the lock to go on, and would never get it.
        """
        self.settle()
        if self.is_locked_here:
            raise self._in_use()

    def _in_use(self) -> StorageOperationError:
        return StorageOperationError(
            f"the log {self._name} is in use by what was interrupted here, as by a signal's handler: append to it, "
            "and do anything else when that has returned"
        )

    def require_whole(self) -> None:
        """Raise ``StorageOperationError`` where a turn was left halfway."""
        if self.is_broken:
            raise StorageOperationError(
                f"the log {self._name} was interrupted while it was being sealed, and takes no more: open it anew; "
                "what was flushed is there"
            )


def _require_depth(calls: int) -> None:
    """Raise ``RecursionError`` where the stack has no room for so many calls."""
    if calls:
        _require_depth(calls - 1)
