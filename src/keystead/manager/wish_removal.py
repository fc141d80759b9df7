"""Wishes for re-encryptions that were asked for long ago, and workers that stopped waiting then, removed."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from keystead.access.removal import remove_all
from keystead.ports import KeyStore

KEPT: Final = timedelta(days=30)


@dataclass(frozen=True, slots=True)
class WishRemoval:
    """Removes what is old of a store's wishes; the audit trail has who asked for what."""

    store: KeyStore

    async def upkeep(self) -> int:
        """Remove wishes that were asked for 30 days ago, and workers that nobody saw since: return how many rows."""
        async with self.store.reading() as work:
            before = await work.now_ms() - int(KEPT.total_seconds() * 1000)
        wishes = await remove_all(self.store, lambda work, most: work.remove_wishes(before, most))
        return wishes + await remove_all(self.store, lambda work, most: work.remove_listeners(before, most))
