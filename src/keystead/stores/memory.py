"""``MemoryKeyStore``: the same SQL on an SQLite database in memory."""

from __future__ import annotations

import os
import sqlite3
import weakref
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from sqlalchemy.ext.asyncio import AsyncEngine

from keystead.errors import StorageOperationError
from keystead.model import StoreState
from keystead.ports import Clock
from keystead.stores import schema
from keystead.stores.engines import async_memory
from keystead.stores.failures import ours_only
from keystead.stores.transaction import Connections
from keystead.stores.unit_of_work import SqlUnitOfWork


class MemoryKeyStore:
    """A ``keystead.ports.KeyStore`` whose rows live as long as this object, closed or not, and never longer.

    ``clock`` replaces the database's clock for leases and heartbeats.
    """

    def __init__(self, *, clock: Clock | None = None) -> None:
        self._clock = clock
        self._pid = os.getpid()
        self._has_schema = False
        self._database = _Memory()
        weakref.finalize(self, sqlite3.Connection.close, self._database.raw)
        self._connections = Connections(self._database)

    @property
    def is_durable(self) -> bool:
        """Whether keys outlive the process."""
        return False

    async def open(self) -> StoreState:
        """Create the schema if it is not there yet and return the store's state."""
        async with self._begin(is_writing=True) as work:
            return await work.state()

    @asynccontextmanager
    async def transaction(self, *, once: bool = False) -> AsyncIterator[SqlUnitOfWork]:
        """Begin a writing transaction; commits when the block ends, rolls back when it raises."""
        async with self._begin(is_writing=True) as work:
            yield work
            work.finish()

    @asynccontextmanager
    async def reading(self, *, once: bool = False) -> AsyncIterator[SqlUnitOfWork]:
        """Begin a read-only transaction; it costs as little for one statement as for many."""
        async with self._begin(is_writing=False) as work:
            yield work
            work.finish()

    async def aclose(self) -> None:
        """Close every connection; idempotent. The rows stay until this object goes."""
        if self._pid == os.getpid():
            await self._connections.aclose()

    @asynccontextmanager
    async def _begin(self, *, is_writing: bool) -> AsyncIterator[SqlUnitOfWork]:
        if self._pid != os.getpid():
            raise StorageOperationError(
                "a memory store does not survive a fork: give each process one of its own, or use "
                "sqlite:///keys.db, which they can share"
            )
        async with self._connections.begin(is_writing=is_writing) as connection:
            if not self._has_schema:
                with ours_only():
                    await connection.run_sync(schema.migrate_if_empty)
            yield SqlUnitOfWork(connection, is_writing=is_writing, clock=self._clock)
        self._has_schema = True


class _Kept(sqlite3.Connection):
    """Outlives the pool's idea of a connection: the rows are in it."""

    def close(self) -> None:
        """Leave no transaction behind; the store's finalizer closes."""
        if self.in_transaction:
            self.rollback()


class _Memory:
    serialises_writers = True
    serialises_readers = True
    is_file = False

    def __init__(self) -> None:
        self.raw = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False, factory=_Kept)

    def engine(self, opened: weakref.WeakSet[Any]) -> AsyncEngine:
        return async_memory(self.raw, opened)
