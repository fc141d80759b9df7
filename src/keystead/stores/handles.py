"""Open SQLite handles of this process, and why none may be open when it forks.

SQLite keeps its file locks per process. A child that inherits an open handle believes that it holds locks which only
its parent holds; when the parent then closes the store, it may delete the write-ahead log under the child, and what
the child commits is lost (https://sqlite.org/howtocorrupt.html, section 2.6). So before a fork every idle handle is
closed, after waiting a moment for transactions of other threads. What cannot be closed, because the forking thread
itself is inside a transaction, makes SQLite stores unusable in the child: an error instead of a loss.
"""

from __future__ import annotations

import os
import sqlite3
import threading
import time
import weakref
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Final

from keystead.errors import StorageOperationError

_FORK_WAIT_S: Final = 10.0


class Handle(sqlite3.Connection):
    """An SQLite connection that a fork of the process can find and close.

    ``file`` is the device and node it is on, ``generation`` that of the open handles when it was opened.
    """

    file: tuple[int, int] | None = None
    generation: int | None = None

    def close(self) -> None:
        """Close; a fork waits for it, because closing takes locks and writes the log back.

        A transaction is rolled back first: while a cursor is left, SQLite keeps what is closed, and its locks with it.
        """
        with open_handles.busy():
            # One that a fork has closed already has none, and says so by an error; closing twice is fine.
            with suppress(sqlite3.Error):
                if self.in_transaction:
                    self.rollback()
            super().close()
            open_handles.discard(self)


class OpenHandles:
    """The process's open handles, and the gate that every SQLite transaction passes."""

    def __init__(self) -> None:
        self.generation = 0
        self._gate = threading.Condition(threading.RLock())
        self._handles: weakref.WeakSet[Handle] = weakref.WeakSet()
        self._inside: Counter[int] = Counter()
        self._is_tainted = False
        self._is_registered = False

    def add(self, handle: Handle) -> None:
        """Remember ``handle``, to be closed before a fork."""
        with self._gate:
            self._handles.add(handle)

    def discard(self, handle: Handle) -> None:
        """Forget ``handle``, which is closed."""
        with self._gate:
            self._handles.discard(handle)

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Hold back forks by other threads while the block runs.

        Raises:
            StorageOperationError: this process inherited an open handle.
        """
        with self._gate:
            self._register()
            if self._is_tainted:
                raise StorageOperationError(
                    "this process was forked while its parent was using an SQLite store, which SQLite does not "
                    "survive: fork while no key operation runs, or start the process by spawn"
                )
        with self.busy():
            yield

    @contextmanager
    def busy(self) -> Iterator[None]:
        """Count this thread as inside SQLite while the block runs."""
        thread = threading.get_ident()
        with self._gate:
            self._inside[thread] += 1
        try:
            yield
        finally:
            with self._gate:
                self._inside[thread] -= 1
                if not self._inside[thread]:
                    del self._inside[thread]
                self._gate.notify_all()

    def _register(self) -> None:
        if not self._is_registered:
            self._is_registered = True
            os.register_at_fork(
                before=self._before_fork, after_in_parent=self._after_in_parent, after_in_child=self._after_in_child
            )

    def _before_fork(self) -> None:
        self._gate.acquire()
        own = threading.get_ident()
        deadline = time.monotonic() + _FORK_WAIT_S
        while any(thread != own for thread in self._inside) and time.monotonic() < deadline:
            self._gate.wait(deadline - time.monotonic())
        if not self._inside:
            for handle in list(self._handles):
                handle.close()
            self.generation += 1

    def _after_in_parent(self) -> None:
        self._gate.release()

    def _after_in_child(self) -> None:
        self._gate = threading.Condition(threading.RLock())
        # Handles are left where a server forks without running Python's hooks before it.
        self._is_tainted = self._is_tainted or bool(self._inside) or bool(self._handles)
        self._inside.clear()


open_handles: Final = OpenHandles()
"""Shared by every SQLite store of the process."""
