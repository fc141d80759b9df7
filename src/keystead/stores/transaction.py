"""Transactions: which engine serves this process and loop, how one begins and ends, and what a failure inside means."""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import AsyncIterator, Collection, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager, nullcontext
from functools import partial
from typing import Any, Final, Protocol, TypeVar

from sqlalchemy import (
    ColumnElement,
    Connection,
    Engine,
    Executable,
    RowMapping,
    Select,
    Table,
    func,
    insert,
    literal_column,
    select,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import DisconnectionError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine
from sqlalchemy.util import greenlet_spawn

from keystead.errors import KMSError, StorageOperationError
from keystead.runtime.patience import Patience
from keystead.stores import engines
from keystead.stores.engines import IS_ONE_STATEMENT, IS_WRITING, EngineOfLoop
from keystead.stores.failures import ours_only, translate
from keystead.stores.handles import open_handles
from keystead.stores.prepared import Prepared, Row, TakesRows

T = TypeVar("T")

AT_ONCE: Final = 500
"""How many values a statement looks for."""


class Database(Protocol):
    """What a kind of store tells its connections."""

    @property
    def serialises_writers(self) -> bool:
        """Whether one writer at a time is all the database takes; waiting in line is then fair."""

    @property
    def serialises_readers(self) -> bool:
        """Whether there is one connection for everything."""

    @property
    def is_file(self) -> bool:
        """Whether handles must not be open across a fork."""

    def engine(self, opened: weakref.WeakSet[Any]) -> AsyncEngine:
        """Return a new engine that adds each driver connection to ``opened``."""


class Connections:
    """The engine of the current process and event loop, made at first use. ``forget`` is for a child of a fork."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._engine: EngineOfLoop | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._line = asyncio.Lock()

    @asynccontextmanager
    async def begin(self, *, is_writing: bool, is_one: bool = False) -> AsyncIterator[AsyncConnection]:
        """Begin a transaction; commit when the block ends, roll back when it raises.

        Errors of the block that are not the store's own pass through unchanged. With ``is_one`` the block runs one
        statement, which is a transaction by itself; of a server ``take`` gives what that needs in less time.
        """
        database = self._database
        waits = database.serialises_readers or (is_writing and database.serialises_writers)
        engine = (await self._current()).engine
        async with self._line if waits else nullcontext():
            with open_handles.transaction() if database.is_file else nullcontext():
                options = {IS_WRITING: is_writing, IS_ONE_STATEMENT: is_one}
                with ours_only():
                    async with _patience(engine):
                        connection = await _begun(engine, options)
                try:
                    yield connection
                    with ours_only():
                        async with _patience(engine):
                            await connection.run_sync(_commit)
                except BaseException:
                    await _roll_back(connection)
                    with ours_only():
                        await connection.close()
                    raise

    async def take(self) -> AsyncConnection:
        """Return a connection to a server on which single statements run, which are transactions by themselves."""
        current = await self._current()
        if (kept := await current.spare.take()) is not None:
            return kept
        with ours_only():
            async with _patience(current.engine):
                return await _begun(current.engine, {IS_ONE_STATEMENT: True})

    async def give(self, connection: AsyncConnection, *, is_whole: bool) -> None:
        """Give such a connection back; one whose last statement was not answered as it should be is let go."""
        current = self._engine
        if is_whole and current is not None and connection.engine is current.engine:
            await current.spare.keep(connection)
            return
        await _roll_back(connection)
        with ours_only():
            await connection.close()

    def forget(self) -> None:
        """Let go of the parent's connections after a fork."""
        engine, self._engine = self._engine, None
        if engine is not None:
            engine.abandon()

    async def aclose(self) -> None:
        """Close every connection; idempotent. A later transaction opens new ones."""
        engine, self._engine = self._engine, None
        if engine is None:
            return
        if self._loop is not asyncio.get_running_loop():
            await engine.drop()
        else:
            with ours_only():
                await engine.aclose()

    async def _current(self) -> EngineOfLoop:
        loop = asyncio.get_running_loop()
        former = self._engine
        if former is not None and self._loop is not loop:
            self._engine = None
            await former.drop()
        if self._engine is None:
            with ours_only():
                self._engine = EngineOfLoop(self._database.engine)
            self._loop, self._line = loop, asyncio.Lock()
        return self._engine


def _patience(where: AsyncEngine | AsyncConnection) -> Patience:
    """End what a server leaves without an answer; a connection that this befalls is given up."""
    return Patience(engines.SILENCE_S if where.sync_engine.dialect.name == "postgresql" else None)


async def _begun(engine: AsyncEngine, options: Mapping[str, Any]) -> AsyncConnection:
    """Return a connection on which a transaction has begun: another one where the first was lost at that moment.

    It is looked at when it is taken, but its server may leave it a moment later. Nothing has been done in it yet.
    """
    begin = partial(greenlet_spawn, _begin, engine.sync_engine, options)
    try:
        return AsyncConnection(engine, await begin())
    except DisconnectionError:
        return AsyncConnection(engine, await begin())


# Each of these is one change to another stack and back, which costs as much as a short statement.


def _begin(engine: Engine, options: Mapping[str, Any]) -> Connection:
    connection = engine.connect()
    raw = connection.connection.dbapi_connection
    try:
        # By itself it only notes them.
        connection.execution_options(**options)
        if not options[IS_ONE_STATEMENT]:
            connection.begin()
    except BaseException as failure:
        connection.invalidate()
        connection.close()
        dialect = engine.dialect
        if isinstance(failure, dialect.loaded_dbapi.Error) and dialect.is_disconnect(failure, raw, None):
            raise DisconnectionError from failure
        raise
    return connection


def _commit(connection: Connection) -> None:
    connection.commit()
    connection.close()


async def _roll_back(connection: AsyncConnection) -> None:
    try:
        async with _patience(connection):
            await connection.rollback()
    except Exception:
        # The failure that led here is the one to tell; closing the connection ends the transaction too.
        await connection.invalidate()


def insert_into(table: Table, dialect: str) -> sqlite.Insert | postgresql.Insert:
    """Return an insert that can say what is done where the row is there."""
    return postgresql.insert(table) if dialect == "postgresql" else sqlite.insert(table)


class Statements:
    """Runs statements in one transaction and turns their failures into ours.

    After a failed statement the transaction can only be left: PostgreSQL refuses to go on, and SQLite, which would,
    is held to the same.
    """

    def __init__(self, connection: AsyncConnection, *, is_writing: bool) -> None:
        self._connection = connection
        self._is_writing = is_writing
        self._failure: KMSError | None = None

    async def _all(self, statement: Executable, values: Mapping[str, Any] | None = None) -> Sequence[RowMapping]:
        rows: Sequence[RowMapping] = (await self._execute(statement, values)).mappings().all()
        return rows

    async def _all_of(
        self, query: Select[Any], column: ColumnElement[Any], wanted: Collection[Any]
    ) -> Sequence[RowMapping]:
        """Return the rows of a query that have one of some values in a column, however many those are."""
        values, found = [*wanted], list[RowMapping]()
        for at in range(0, len(values), AT_ONCE):
            found += await self._all(query.where(column.in_(values[at : at + AT_ONCE])))
        return found

    async def _tuples(self, statement: Executable) -> Sequence[Sequence[Any]]:
        rows: Sequence[Sequence[Any]] = (await self._execute(statement)).all()
        return rows

    async def _first(self, statement: Executable) -> RowMapping | None:
        row: RowMapping | None = (await self._execute(statement)).mappings().first()
        return row

    async def _number(self, table: Table, *conditions: ColumnElement[bool]) -> int:
        row = await self._first(select(func.count().label("number")).select_from(table).where(*conditions))
        return 0 if row is None else int(row["number"])

    async def _number_up_to(self, most: int | None, table: Table, *conditions: ColumnElement[bool]) -> int:
        """Return how many rows there are, and read no more than ``most``; None for all."""
        if most is None:
            return await self._number(table, *conditions)
        some: Select[Any] = select(literal_column("1")).select_from(table).where(*conditions).limit(most)
        [[number]] = await self._tuples(select(func.count()).select_from(some.subquery()))
        return int(number)

    async def _write(self, statement: Executable) -> RowMapping | None:
        self._require_writing()
        result = await self._execute(statement)
        return result.mappings().first() if result.returns_rows else None

    async def _write_many(self, table: Table, rows: Sequence[Mapping[str, Any]]) -> None:
        """Insert rows, each of which has the same columns."""
        self._require_writing()
        if rows:
            await self._answered(self._connection.execute(insert(table), rows))

    async def _count(self, statement: Executable) -> int:
        self._require_writing()
        return int((await self._execute(statement)).rowcount)

    async def _run(self, prepared: Prepared, values: Mapping[str, Any], *, writes: bool = True) -> list[Row]:
        """Run a statement that every request runs, and return the rows of its answer."""
        if writes:
            self._require_writing()
        return await self._answered(prepared.run(self._connection, values))

    async def _run_many(self, prepared: TakesRows, rows: Sequence[Mapping[str, Any]]) -> None:
        """Run a statement that writes for each of some rows of values."""
        self._require_writing()
        await self._answered(prepared.run_many(self._connection, rows))

    @asynccontextmanager
    async def savepoint(self) -> AsyncIterator[None]:
        """Begin a part of the transaction that alone is undone when its block raises."""
        self._require_writing()
        if self._failure is not None:
            raise self._failure
        with ours_only():
            async with _patience(self._connection):
                nested = await self._connection.begin_nested()
        try:
            yield
        except BaseException:
            with ours_only():
                async with _patience(self._connection):
                    await nested.rollback()
            self._failure = None
            raise
        with ours_only():
            async with _patience(self._connection):
                await nested.commit()

    def _insert(self, table: Table) -> sqlite.Insert | postgresql.Insert:
        return insert_into(table, self._connection.dialect.name)

    def _require_writing(self) -> None:
        if not self._is_writing:
            raise StorageOperationError("this transaction only reads; write inside `store.transaction()`")

    async def _execute(self, statement: Executable, values: Mapping[str, Any] | None = None) -> Any:
        return await self._answered(self._connection.execute(statement, values))

    async def _answered(self, answer: Coroutine[Any, Any, T]) -> T:
        if self._failure is not None:
            answer.close()
            raise self._failure
        try:
            async with _patience(self._connection):
                return await answer
        except Exception as failure:
            self._failure = translate(failure)
            raise self._failure from None

    @property
    def is_whole(self) -> bool:
        """Whether no statement has failed."""
        return self._failure is None

    def finish(self) -> None:
        """Raise the failure that this transaction met, if the caller kept it to itself."""
        if self._failure is not None:
            raise self._failure
