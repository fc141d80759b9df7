"""A store whose every change is in the trail."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager

from keystead.ledger.audit.trail import Trail
from keystead.model import StoreState
from keystead.ports import UnitOfWork


class AuditedStore:
    """The store of a trail: whatever a transaction changes is in the trail. A ``keystead.ports.KeyStore``."""

    def __init__(self, trail: Trail) -> None:
        self._store = trail.store
        self.trail = trail

    @property
    def is_durable(self) -> bool:
        """Whether keys outlive the process."""
        return self._store.is_durable

    async def open(self) -> StoreState:
        """Open the store."""
        return await self._store.open()

    def transaction(self) -> AbstractAsyncContextManager[UnitOfWork]:
        """Begin a writing transaction, at the end of which its entries are written."""
        return self.trail.transaction()

    @asynccontextmanager
    async def reading(self, *, once: bool = False) -> AsyncIterator[UnitOfWork]:
        """Begin a read-only transaction. In a process that takes no part it tells whether a trail has begun."""
        async with self._store.reading(once=once and not self.trail.is_refusing) as work:
            if self.trail.is_refusing:
                self.trail.is_begun = (await work.state()).audited
            yield work

    async def aclose(self) -> None:
        """Close the store."""
        await self._store.aclose()
