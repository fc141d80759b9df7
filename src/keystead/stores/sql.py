"""``SqlKeyStore``: the key store on an SQLite file or a PostgreSQL database."""

from __future__ import annotations

import sys
import weakref
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, AbstractContextManager, asynccontextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

from sqlalchemy import Insert, MetaData
from sqlalchemy.ext.asyncio import AsyncEngine

from keystead import telemetry
from keystead.errors import ConfigurationError
from keystead.model import StoreState
from keystead.runtime import fork
from keystead.stores import creation, schema
from keystead.stores.engines import async_postgresql, async_sqlite
from keystead.stores.failures import ours_only
from keystead.stores.tables import audit_entries
from keystead.stores.transaction import Connections, Database
from keystead.stores.unit_of_work import SqlUnitOfWork
from keystead.stores.urls import StoreUrl, parse_url


class SqlKeyStore:
    """A durable ``keystead.ports.KeyStore``. Building it does no I/O; it connects at its first use.

    A child of a fork, and another event loop than before, get connections of their own. Two event loops at the same
    time do not: use one store for each.

    Args:
        url: of an SQLite file or a PostgreSQL database.
        schema: the PostgreSQL schema.
        creates: whether ``open`` makes an SQLite store where there is none.
    """

    def __init__(self, url: str | StoreUrl, *, schema: str | None = None, creates: bool = True) -> None:
        self._url = parse_url(url, schema=schema)
        if self._url.kind == "memory":
            raise ConfigurationError("SqlKeyStore keeps keys on disk; for memory:// use MemoryKeyStore")
        self._creates = creates
        database: Database
        database = _File(self._url.path) if self._url.path is not None else _Server(self._url)
        self._connections = Connections(database)
        table = audit_entries if self._url.schema is None else audit_entries.to_metadata(MetaData(), self._url.schema)
        self._audit_insert = table.insert()
        fork.in_child(self.after_fork)

    @property
    def is_durable(self) -> bool:
        """Whether keys outlive the process."""
        return True

    @property
    def file(self) -> Path | None:
        """The SQLite file, None for a server."""
        return self._url.path

    async def open(self) -> StoreState:
        """Check the schema and return the store's state; an SQLite file that is absent or empty is created first.

        Raises:
            StoreNotFoundError: it is absent or empty, and this store makes none.
            SchemaVersionError: the schema is missing, older or newer; the message names the cure.
            ForeignSchemaError: tables of our names are there, and are not ours.
        """
        if self._url.path is not None:
            await (creation.create_if_empty if self._creates else creation.require_filled)(self._url.path)
        try:
            async with self._connections.begin(is_writing=False) as connection:
                with ours_only():
                    await connection.run_sync(schema.check_connection, self._url.schema)
                return await SqlUnitOfWork(connection, is_writing=False).state()
        except BaseException:
            await self.aclose()
            raise

    def transaction(self, *, once: bool = False) -> AbstractAsyncContextManager[SqlUnitOfWork]:
        """Begin a writing transaction; commits when the block ends, rolls back when it raises.

        With ``once`` the block makes one write, which a server does in one statement, and no transaction is begun.
        """
        is_one = once and self._url.path is None
        return _OneStatement(self._connections, is_writing=True) if is_one else self._begun(is_writing=True)

    def reading(self, *, once: bool = False) -> AbstractAsyncContextManager[SqlUnitOfWork]:
        """Begin a read-only transaction, which sees one moment of the store; with ``once`` read one statement."""
        is_one = once and self._url.path is None
        return (
            _OneStatement(self._connections, is_writing=False) if is_one else self._begun(is_writing=False, once=once)
        )

    @asynccontextmanager
    async def _begun(self, *, is_writing: bool, once: bool = False) -> AsyncIterator[SqlUnitOfWork]:
        with _span(is_writing=is_writing):
            async with self._connections.begin(is_writing=is_writing, is_one=once) as connection:
                work = SqlUnitOfWork(connection, is_writing=is_writing)
                yield work
                work.finish()

    def audit_insert(self) -> Insert:
        """Return the statement that inserts an entry of the audit trail, for a transaction of somebody else's."""
        return self._audit_insert

    async def aclose(self) -> None:
        """Close every connection; idempotent."""
        await self._connections.aclose()

    def after_fork(self) -> None:
        """Let go of the parent's connections; called in every child of a fork."""
        self._connections.forget()


class _OneStatement:
    """The context of a single statement at a server. It is no generator: every request enters some."""

    def __init__(self, connections: Connections, *, is_writing: bool) -> None:
        self._connections = connections
        self._is_writing = is_writing
        self._span = _span(is_writing=is_writing)

    async def __aenter__(self) -> SqlUnitOfWork:
        self._span.__enter__()
        try:
            self._connection = await self._connections.take()
        except BaseException:
            self._span.__exit__(*sys.exc_info())
            raise
        self._work = SqlUnitOfWork(self._connection, is_writing=self._is_writing)
        return self._work

    async def __aexit__(
        self, kind: type[BaseException] | None, failure: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            await self._connections.give(self._connection, is_whole=kind is None and self._work.is_whole)
        finally:
            self._span.__exit__(kind, failure, trace)
        if kind is None:
            self._work.finish()


def _span(*, is_writing: bool) -> AbstractContextManager[object]:
    return telemetry.span("keystead.transaction", {"keystead.is_writing": is_writing})


class _File:
    serialises_writers = True
    serialises_readers = False
    is_file = True

    def __init__(self, path: Path) -> None:
        self._path = path

    def engine(self, opened: weakref.WeakSet[Any]) -> AsyncEngine:
        return async_sqlite(self._path, opened)


class _Server:
    serialises_writers = False
    serialises_readers = False
    is_file = False

    def __init__(self, url: StoreUrl) -> None:
        self._url = url

    def engine(self, opened: weakref.WeakSet[Any]) -> AsyncEngine:
        return async_postgresql(self._url, opened)
