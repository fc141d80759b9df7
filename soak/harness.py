"""Processes of a scenario: forked from one that has no threads and no event loop, watched, and bounded in time.

The process that runs scenarios imports everything, and never opens a store itself: what uses keys runs in a child. A
child dies with its parent, so that nothing is left when a run is stopped.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import gc
import importlib
import os
import pickle
import select
import signal
import struct
import sys
import time
import traceback
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final, Generic, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

DEFAULT_TIMEOUT_S: Final = 300.0
_LIBC: Final = ctypes.CDLL(None) if sys.platform == "linux" else None
_SET_PARENT_DEATH_SIGNAL: Final = 1
_SIZE: Final = struct.Struct(">Q")
_POLL_S: Final = 0.02
_LIBRARIES: Final = frozenset(
    {"aiosqlite", "alembic", "cryptography", "keystead", "mako", "psycopg", "sqlalchemy", "stamina"}
)
_OF_SERVERS: Final = frozenset(
    {
        "argon2",
        "fastapi",
        "graphql",
        "httptools",
        "pydantic",
        "rich",
        "starlette",
        "strawberry",
        "typer",
        "uvicorn",
        "uvloop",
    }
)
_PRELOADED: Final = _LIBRARIES | _OF_SERVERS


class ChildFailedError(Exception):
    """A child raised, ended without an answer, or took too long; the text holds its traceback."""


class ChildKilledError(ChildFailedError):
    """A child was killed before it answered."""


@dataclass(slots=True)
class Child(Generic[T]):
    """A forked process and the pipe its answer comes through."""

    pid: int
    _pipe: int
    _buffer: bytes = b""
    _status: int | None = None

    def result(self, timeout_s: float = DEFAULT_TIMEOUT_S) -> T:
        """Wait for the child's end and return what its function returned.

        Raises:
            ChildKilledError: a signal ended it.
            ChildFailedError: it raised, or took too long and was killed.
        """
        deadline = time.monotonic() + timeout_s
        try:
            while self._wants_more():
                if time.monotonic() > deadline:
                    self.kill()
                    raise ChildFailedError(f"a child took longer than {timeout_s:g} s")
                self._read()
        finally:
            os.close(self._pipe)
        self._reap()
        if len(self._buffer) < _SIZE.size:
            status = self._status or 0
            if os.WIFSIGNALED(status):
                raise ChildKilledError(f"a child was ended by signal {os.WTERMSIG(status)}")
            raise ChildFailedError(f"a child ended without an answer, status {status}")
        is_good, answer = pickle.loads(self._buffer[_SIZE.size :])
        if not is_good:
            raise ChildFailedError(answer)
        value: T = answer
        return value

    def is_running(self) -> bool:
        """Whether the process is alive."""
        return not self._has_ended()

    def kill(self) -> None:
        """End the process with SIGKILL and wait for it."""
        if not self._has_ended():
            os.kill(self.pid, signal.SIGKILL)
            self._reap()

    def was_killed(self, timeout_s: float = DEFAULT_TIMEOUT_S) -> bool:
        """Wait for the end; whether SIGKILL was it. Raises what the child raised otherwise."""
        try:
            self.result(timeout_s)
        except ChildKilledError:
            return True
        return False

    def _wants_more(self) -> bool:
        if len(self._buffer) >= _SIZE.size:
            (size,) = _SIZE.unpack_from(self._buffer)
            return len(self._buffer) < _SIZE.size + int(size)
        if self._has_ended():
            self._read()
            return len(self._buffer) >= _SIZE.size and self._wants_more()
        return True

    def _read(self) -> None:
        readable, _, _ = select.select([self._pipe], [], [], _POLL_S)
        if readable:
            data = os.read(self._pipe, 1 << 20)
            self._buffer += data
            if not data:
                self._reap()

    def _has_ended(self) -> bool:
        if self._status is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self._status = status
        return self._status is not None

    def _reap(self) -> None:
        if self._status is None:
            _, self._status = os.waitpid(self.pid, 0)


def fork(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Child[T]:
    """Run ``function`` in a forked child; its result must be picklable."""
    reading, writing = os.pipe()
    sys.stdout.flush()
    sys.stderr.flush()
    parent = os.getpid()
    pid = os.fork()
    if pid:
        os.close(writing)
        return Child(pid, reading)
    answer: tuple[bool, Any]
    try:
        os.close(reading)
        _die_with(parent)
        answer = (True, function(*args, **kwargs))
    except BaseException:
        answer = (False, traceback.format_exc())
    try:
        data = pickle.dumps(answer)
    except Exception:
        data = pickle.dumps((False, traceback.format_exc()))
    with os.fdopen(writing, "wb") as pipe:
        pipe.write(_SIZE.pack(len(data)) + data)
    os._exit(0)


def in_child(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Run ``function`` in a forked child, wait, and return what it returned."""
    return fork(function, *args, **kwargs).result()


def preload(function: Callable[[], object]) -> None:
    """Import what ``function`` imports when it runs, without running it here: forks then need not."""
    for name in in_child(_modules_after, function):
        # A module may only make sense where it was first imported, as a child's main module does.
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    # A collection in a child would copy every page that it looks at.
    gc.collect()
    gc.freeze()


def _modules_after(function: Callable[[], object]) -> list[str]:
    function()
    return sorted(name for name in sys.modules if name.partition(".")[0] in _PRELOADED)


def results(children: Iterable[Child[T]], timeout_s: float = DEFAULT_TIMEOUT_S) -> list[T]:
    """Return every child's result; when one fails, the others are killed."""
    waiting = list(children)
    deadline = time.monotonic() + timeout_s
    try:
        return [child.result(max(1.0, deadline - time.monotonic())) for child in waiting]
    except BaseException:
        for child in waiting:
            child.kill()
        raise


def wait_for(condition: Callable[[], bool], timeout_s: float, what: str) -> None:
    """Wait until ``condition`` holds.

    Raises:
        ChildFailedError: it did not within ``timeout_s``.
    """
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            raise ChildFailedError(f"waited {timeout_s:g} s for {what}")
        time.sleep(_POLL_S)


async def sleep_until(condition: Callable[[], bool], timeout_s: float, what: str) -> None:
    """Wait as ``wait_for`` does, on an event loop."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        await asyncio.sleep(_POLL_S / 10)
        if time.monotonic() > deadline:
            raise ChildFailedError(f"waited {timeout_s:g} s for {what}")


def two_sides() -> tuple[set[int], set[int]]:
    """Return the cores of this process in two halves, for a side that is measured and one that is not.

    Where there is one core, or the system binds nothing to cores, both have all there are.
    """
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    half = len(cores) // 2
    return set(cores[:half] or cores), set(cores[half:])


def keep_to(cores: set[int]) -> None:
    """Bind every thread of this process, and those they will start, to the cores."""
    if cores:
        for thread in os.listdir("/proc/self/task"):
            os.sched_setaffinity(int(thread), cores)


def _die_with(parent: int) -> None:
    if _LIBC is not None:
        _LIBC.prctl(_SET_PARENT_DEATH_SIGNAL, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)
