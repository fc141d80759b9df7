"""Locks by name that are there for as long as somebody holds or awaits them."""

from __future__ import annotations

import asyncio
from weakref import WeakValueDictionary


class NamedLocks:
    """``locks(name)`` is the running event loop's lock of that name. Names that nobody uses take no memory."""

    def __init__(self) -> None:
        self._locks: WeakValueDictionary[tuple[asyncio.AbstractEventLoop, str], asyncio.Lock] = WeakValueDictionary()

    def __call__(self, name: str) -> asyncio.Lock:
        """Return the lock called ``name``."""
        key = (asyncio.get_running_loop(), name)
        lock = self._locks.get(key)
        if lock is None:
            lock = self._locks[key] = asyncio.Lock()
        return lock
