"""Threads for an SDK that blocks, so that the event loop never does."""

from __future__ import annotations

import contextlib
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, Final, TypeAlias, TypeVar

from keystead.errors import ProviderConnectionError, SystemShutdownError
from keystead.runtime import exits, fork
from keystead.runtime.handover import Handover

T = TypeVar("T")

EXIT_WAIT_S: Final = 2.0
"""How long the interpreter's exit waits for the calls under way: one may be giving a token back."""

Desk: TypeAlias = SimpleQueue[Handover[Any] | None]
"""Where a thread waits for its next call; None sends it home."""


class Workers:
    """A bounded pool of threads that one provider makes its calls in.

    A caller that is cancelled, or whose deadline passes, leaves at once; a call that is under way then ends by the
    timeouts the SDK was given, and one that has not begun never does. A child of a fork makes threads of its own. Of
    idle threads the last to become so takes the next call: its stack and the SDK's connection are still warm, which
    an executor's queue, whose threads take turns, gives away. A call that hangs does not keep the process alive.
    """

    def __init__(self, name: str, *, threads: int = 8) -> None:
        self._name = name
        self._threads = threads
        self._open(is_over=False)
        fork.in_child(self._forget)

    async def run(self, call: Callable[[], T]) -> T:
        """Return what ``call`` returns, made in one of the threads.

        Raises:
            SystemShutdownError: the pool was closed, before the call or while it waited for a thread.
            ProviderConnectionError: the system has no thread to give.
        """
        handover = Handover(call)
        self._pool.take(handover)
        return await handover.outcome()

    def close(self) -> None:
        """End the threads as soon as their calls end; idempotent."""
        self._pool.close()

    def _open(self, *, is_over: bool) -> None:
        self._pool = _Pool(self._name, self._threads, is_over=is_over)
        # The threads know the pool only, and end with whoever gave them calls.
        self._finalizer = weakref.finalize(self, self._pool.close)
        self._finalizer.atexit = False

    def _forget(self) -> None:
        # The parent's pool is not touched: a thread that is not here may hold its lock.
        self._finalizer.detach()
        self._open(is_over=self._pool.is_over)


class _Pool:
    """What the threads share."""

    def __init__(self, name: str, threads: int, *, is_over: bool) -> None:
        self._name = name
        self._threads = threads
        self._here: list[threading.Thread] = []
        self._idle: list[Desk] = []
        self._waiting: deque[Handover[Any]] = deque()
        # Collecting garbage may call ``close`` in the midst of anything.
        self._lock = threading.RLock()
        self._is_left_alone = False
        self.is_over = is_over
        exits.to_end(self._leave)
        # By the pool itself: its threads may outlive the provider it was for.
        fork.in_child(self._forget)

    def take(self, handover: Handover[Any]) -> None:
        """Give a call to an idle thread, or to the first that will be.

        A thread that starts another waits until it runs. While others compute, each start may hold the loop up for
        milliseconds: so the caller starts the first one only, and that one the rest.

        Raises:
            SystemShutdownError: after ``close``.
            ProviderConnectionError: the system has no thread to give.
        """
        with self._lock:
            if self.is_over:
                raise self._closed()
            if self._idle:
                self._idle.pop().put(handover)
                return
            if not self._here:
                self._start_first()
            self._waiting.append(handover)

    def close(self) -> None:
        """Refuse the calls that wait, and send the threads home."""
        with self._lock:
            self.is_over = True
            while self._waiting:
                self._waiting.popleft().refuse(self._closed())
            while self._idle:
                self._idle.pop().put(None)

    def _forget(self) -> None:
        self._is_left_alone = True

    def _leave(self) -> None:
        if self._is_left_alone:
            return
        self.close()
        give_up_at = time.monotonic() + EXIT_WAIT_S
        for thread in list(self._here):
            with contextlib.suppress(RuntimeError):  # it is about to start, and will find the pool closed
                thread.join(max(0.0, give_up_at - time.monotonic()))

    def _work_first(self) -> None:
        try:
            for _ in range(self._threads - 1):
                self._start(self._work)
        except RuntimeError:
            pass  # the system has no more to give: there are as many as there are
        self._work()

    def _work(self) -> None:
        desk: Desk = SimpleQueue()
        following = self._sit_down(desk)
        while (handover := following or desk.get()) is not None:
            is_made = handover.make()
            # Before its caller hears of it, whose next call then finds this thread idle.
            following = self._sit_down(desk)
            if is_made:
                handover.deliver()
            del handover  # what it holds may be secret, and the next one may be long in coming
        with self._lock:
            self._here.remove(threading.current_thread())

    def _sit_down(self, desk: Desk) -> Handover[Any] | None:
        """Return a call that waits; where there is none, the next comes to the desk."""
        with self._lock:
            if self._waiting:
                return self._waiting.popleft()
            self._idle.append(desk)
        # Looked at after the desk is where ``close`` finds it, wherever that comes in between.
        if self.is_over:
            desk.put(None)
        return None

    def _start_first(self) -> None:
        try:
            self._start(self._work_first)
        except RuntimeError:
            raise ProviderConnectionError(
                f"the provider {self._name} needs a thread, and the system gives none: look at its limit of tasks"
            ) from None

    def _start(self, target: Callable[[], None]) -> None:
        thread = threading.Thread(target=target, name=f"keystead-{self._name}", daemon=True)
        self._here.append(thread)
        try:
            thread.start()
        except RuntimeError:
            self._here.remove(thread)
            raise

    def _closed(self) -> SystemShutdownError:
        return SystemShutdownError(f"the provider {self._name} was closed")
