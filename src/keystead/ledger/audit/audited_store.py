"""A store whose every change is in the trail."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TypeVar

from keystead.errors import ConflictError, StoreReadOnlyError
from keystead.ledger.audit.actor import Told, current_actor
from keystead.ledger.audit.trail import Trail
from keystead.model import StoreState
from keystead.ports import AuditEntryRow, AuditEvent, UnitOfWork

T = TypeVar("T")


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

    def transaction(self, *, once: bool = False) -> AbstractAsyncContextManager[UnitOfWork]:
        """Begin a writing transaction, at the end of which its entries are written: never one of a single write."""
        return self.trail.transaction()

    @property
    def may_write_at_once(self) -> bool:
        """Whether the trail is open, and may miss no entry."""
        return self.trail.needs_entries

    async def write_at_once(
        self, event: AuditEvent, write: Callable[[UnitOfWork, AuditEntryRow], Awaitable[T]]
    ) -> T | None:
        """Make one write with the entry of an event; as ``keystead.ports.WritesAtOnce``. Errors as ``Trail.write``."""
        trail, is_done = self.trail, False
        await trail.ensure()
        if not self.may_write_at_once:
            return None
        [row], written = trail.draw_rows([Told(event, current_actor())])
        try:
            async with self._store.transaction(once=True) as work:
                done = await write(work, row)
            is_done = bool(done)
        except (ConflictError, StoreReadOnlyError):
            # So a server may answer where its sessions are serializable, or read only, unless their begin says else.
            return None
        finally:
            trail.settle(written, is_committed=is_done)
        return done

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
