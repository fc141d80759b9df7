"""Rows whose time is over long ago, removed so many in a transaction that nobody waits for it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

from keystead.ports import KeyStore, UnitOfWork

AT_ONCE: Final = 1000
"""Rows that one transaction removes."""


async def remove_all(store: KeyStore, remove: Callable[[UnitOfWork, int], Awaitable[int]]) -> int:
    """Have ``remove``, which takes how many at most and returns how many there were, remove all: return how many."""
    removed = 0
    while True:
        async with store.transaction() as work:
            found = await remove(work, AT_ONCE)
        removed += found
        if found < AT_ONCE:
            return removed
