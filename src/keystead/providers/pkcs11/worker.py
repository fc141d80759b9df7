"""The one thread of this process that may be inside a PKCS#11 module.

The binding calls ``C_Initialize`` for a single thread and lets Python's own lock go around every call, so that two
threads in one module crash the process. Everything that is done with a module is therefore a *turn*: a function that
runs in the module's thread, one after the other, for every provider of the process.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from queue import SimpleQueue
from typing import Final, NoReturn, Protocol, TypeVar

from keystead.errors import ProviderConnectionError
from keystead.runtime import exits, fork
from keystead.runtime.handover import Handover

T = TypeVar("T")

FORK_WAIT_S: Final = 2.0
"""How long a fork waits for the turn under way."""
EXIT_WAIT_S: Final = 2.0
"""How long the interpreter's exit waits for the turn under way."""


class _Turn(Protocol):
    def make(self) -> bool: ...

    def deliver(self) -> None: ...


class ModuleWorker:
    """Takes turns in a daemon thread: a call that never returns from the module does not keep the process alive.

    A caller that is cancelled or waits too long leaves at once; its turn is dropped if it has not begun, and goes on
    without it if it has. A child of a fork has a thread and a queue of its own. ``at_exit`` is taken in a
    turn at the interpreter's exit.
    """

    def __init__(self, name: str, *, at_exit: Callable[[], None]) -> None:
        self._name = name
        self._at_exit = at_exit
        self._is_torn = False
        self.turns = 0
        self._entered_at: float | None = None
        self._thread: threading.Thread | None = None
        self._renew()
        fork.in_child(self._forget)
        fork.around(self._before_fork, self._after_fork)
        exits.to_end(self._exit)

    @property
    def has_begun(self) -> bool:
        """Whether this process has taken a turn, or is about to."""
        return self._thread is not None

    async def run(self, call: Callable[[], T], *, timeout_s: float) -> T:
        """Return what ``call`` returns in its turn.

        Raises:
            ProviderConnectionError: it has not returned after ``timeout_s``, or could not begin.
        """
        if self._is_torn:
            raise ProviderConnectionError(
                f"this process was forked while a call was inside the PKCS#11 module {self._name}, whose state is "
                "undefined here; start the process again"
            )
        if (inside_s := self._inside_s()) >= timeout_s:
            raise self._stuck(inside_s)
        turn = Handover(call)
        self._submit(turn)
        if await turn.arrives(timeout_s):
            return turn.result()
        if turn.has_begun:
            raise ProviderConnectionError(
                f"the PKCS#11 module {self._name} has not returned from this call after {timeout_s:g} s"
            )
        raise self._stuck(max(self._inside_s(), timeout_s))

    def _submit(self, turn: _Turn) -> None:
        with self._starting:
            if self._thread is None:
                arguments = (self._turns, self._inside)
                self._thread = threading.Thread(
                    target=self._work, args=arguments, name=f"keystead-pkcs11-{self._name}", daemon=True
                )
                self._thread.start()
            self._turns.put(turn)

    def _work(self, turns: SimpleQueue[_Turn], inside: threading.RLock) -> NoReturn:
        while True:
            turn = turns.get()
            self._take(turn, inside)
            del turn  # what it holds may be secret, and the next one may be long in coming

    def _take(self, turn: _Turn, inside: threading.RLock) -> None:
        with inside:
            self._entered_at = time.monotonic()
            try:
                self.turns += turn.make()
            finally:
                self._entered_at = None
        turn.deliver()

    def _inside_s(self) -> float:
        entered_at = self._entered_at
        return 0.0 if entered_at is None else time.monotonic() - entered_at

    def _stuck(self, inside_s: float) -> ProviderConnectionError:
        return ProviderConnectionError(
            f"another call has been inside the PKCS#11 module {self._name} for {inside_s:.0f} s, and a second one must "
            "not enter it; if the token does not recover, start the process again"
        )

    def _renew(self) -> None:
        self._turns: SimpleQueue[_Turn] = SimpleQueue()
        self._inside = threading.RLock()
        self._starting = threading.Lock()
        self._thread = None
        self._entered_at = None
        self._forking: set[int] = set()

    def _before_fork(self) -> None:
        if self._inside.acquire(timeout=FORK_WAIT_S):
            self._forking.add(threading.get_ident())

    def _after_fork(self) -> None:
        if threading.get_ident() in self._forking:
            self._forking.discard(threading.get_ident())
            self._inside.release()

    def _forget(self) -> None:
        # A lock that the forking thread did not get was held by a turn, which does not exist in this process.
        self._is_torn |= threading.get_ident() not in self._forking
        self._renew()

    def _exit(self) -> None:
        # The thread goes on: what closes later, at the same exit, may still have a turn to take.
        if self._thread is not None:
            turn = _LastTurn(self._at_exit)
            self._turns.put(turn)
            turn.is_over.wait(EXIT_WAIT_S)


class _LastTurn:
    """Taken when no event loop is left to hear of it."""

    def __init__(self, call: Callable[[], None]) -> None:
        self._call = call
        self.is_over = threading.Event()

    def make(self) -> bool:
        with contextlib.suppress(Exception):
            self._call()
        return True

    def deliver(self) -> None:
        self.is_over.set()
