"""Engines: how a connection to each database is made and how its transactions begin."""

from __future__ import annotations

import asyncio
import os
import select
import sqlite3
import time
import weakref
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

import aiosqlite
from sqlalchemy import Connection, Engine, NullPool, create_engine, event
from sqlalchemy.exc import DisconnectionError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from keystead.stores import rows_arrays
from keystead.stores.handles import Handle, open_handles
from keystead.stores.spare import RESTED_S, Spare
from keystead.stores.urls import StoreUrl

if TYPE_CHECKING:
    from psycopg import AsyncConnection

IS_WRITING: Final = "keystead_is_writing"
"""Execution option of a connection whose transactions write."""
IS_ONE_STATEMENT: Final = "keystead_is_one_statement"
"""Execution option of a connection that runs one statement, for which no transaction is begun."""

BUSY_TIMEOUT_S: Final = 10.0
LOCK_TIMEOUT_MS: Final = 10_000
STATEMENT_TIMEOUT_MS: Final = 30_000
IDLE_TIMEOUT_MS: Final = 60_000
CONNECT_TIMEOUT_S: Final = 10
LET_GO_S: Final = 2.0
"""How long a connection that was given up may go on with a handle that is shared."""
_LOOK_S: Final = 0.001
SILENCE_S: Final = 40
"""How long a server may take for one answer: longer than it allows itself for a statement."""

ROW_LIMIT: Final = f"set_config('lock_timeout', '{LOCK_TIMEOUT_MS}', true)"
"""Has a transaction on PostgreSQL not wait for a row for ever."""
LASTING: Final = """set_config('synchronous_commit',
                  CASE WHEN current_setting('synchronous_commit') IN ('off', 'local', 'remote_write') THEN 'on'
                       ELSE current_setting('synchronous_commit') END,
                  true)"""
"""Has a transaction on PostgreSQL be on disk once it is committed."""
_POSTGRESQL_WRITING: Final = f"""
SELECT {ROW_LIMIT},
       set_config('statement_timeout', '{STATEMENT_TIMEOUT_MS}', true),
       set_config('idle_in_transaction_session_timeout', '{IDLE_TIMEOUT_MS}', true),
       {LASTING}
"""
_BEGIN_WRITING: Final = f"BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE; {_POSTGRESQL_WRITING}"
# Nothing that is read here takes long enough for a second process to be worth its start.
_BEGIN_READING: Final = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SET LOCAL max_parallel_workers_per_gather = 0"
_CONNECTED: Final = 0
_FAREWELLS: Final = 3


class EngineOfLoop:
    """An engine made for one process and one event loop, and the driver's connections that it opened."""

    def __init__(self, make: Callable[[weakref.WeakSet[Any]], AsyncEngine]) -> None:
        self._opened: weakref.WeakSet[Any] = weakref.WeakSet()
        self._inherited: list[Any] = []
        self.engine = make(self._opened)
        self.spare: Final = Spare(_has_left)

    async def aclose(self) -> None:
        """Close every connection, on the loop that opened them."""
        await self.spare.aclose()
        await self.engine.dispose()

    async def drop(self) -> None:
        """Close every connection from another loop than opened them: theirs may be gone."""
        for connection in list(self._opened):
            if isinstance(connection, aiosqlite.Connection):
                if (stopped := connection.stop()) is not None:
                    await stopped
            else:
                connection.pgconn.finish()
        await self.spare.drop()
        self.engine.sync_engine.dispose(close=False)

    def abandon(self) -> None:
        """Let go of connections that belong to the parent of a fork, without touching them."""
        self._inherited = list(self._opened)
        _INHERITED.append(self)
        self.engine.sync_engine.dispose(close=False)


_INHERITED: Final[list[EngineOfLoop]] = []
"""A parent's engines, kept for ever so that no finalizer closes what is not ours."""


def sqlite_uri(path: Path, *, is_reading: bool = False) -> str:
    """Return the URI by which SQLite opens ``path``, never creating it.

    A log file has to be made beside the database even for reading. Where the folder forbids that and nobody has left
    one there, nobody writes either, and the file is read as immutable.
    """
    options = "mode=rw"
    if is_reading or not os.access(path, os.W_OK):
        options = "mode=ro"
    if not os.access(path.parent, os.W_OK) and not path.with_name(path.name + "-wal").exists():
        options = "mode=ro&immutable=1"
    return f"file:{quote(str(path))}?{options}"


def open_sqlite(path: Path) -> Handle:
    """Return a handle on an SQLite file, in no transaction, that a fork can close."""
    handle = sqlite3.connect(
        sqlite_uri(path),
        uri=True,
        isolation_level=None,
        timeout=BUSY_TIMEOUT_S,
        check_same_thread=False,
        factory=Handle,
    )
    open_handles.add(handle)
    return handle


def _open_store(path: Path) -> sqlite3.Connection:
    """Return a handle on a store; text that is none, which only somebody else can have written, has escapes in it."""
    file, generation = _file_at(path), open_handles.generation
    handle = open_sqlite(path)
    handle.file, handle.generation = file, generation
    handle.text_factory = partial(str, encoding="utf-8", errors="backslashreplace")
    return handle


def async_sqlite(path: Path, opened: weakref.WeakSet[Any]) -> AsyncEngine:
    """Return an engine on an SQLite file whose handles a fork can close."""
    engine = create_async_engine(
        "sqlite+aiosqlite:///store",
        async_creator=partial(_aiosqlite, partial(_open_store, path), opened),
        pool_size=8,
        max_overflow=0,
        pool_timeout=BUSY_TIMEOUT_S,
        hide_parameters=True,
    )
    begin_explicitly(engine.sync_engine)
    event.listen(engine.sync_engine, "checkout", partial(_refuse_what_is_over, path))
    return engine


def async_memory(raw: sqlite3.Connection, opened: weakref.WeakSet[Any]) -> AsyncEngine:
    """Return an engine whose every connection is ``raw``."""
    engine = create_async_engine(
        "sqlite+aiosqlite:///store",
        async_creator=partial(_one_after_another, raw, opened),
        poolclass=NullPool,
        hide_parameters=True,
    )
    begin_explicitly(engine.sync_engine)
    return engine


class _Discreet(aiosqlite.Connection):
    """Keeps parameters out of aiosqlite's debug log, which prints the calls it queues; knows when it has stopped."""

    stopped: asyncio.Future[Any] | None = None
    _is_stopping = False
    _made_on: asyncio.AbstractEventLoop | None = None

    async def let_go(self) -> None:
        """Wait until its thread has done what it was asked to, closing included. Another loop's is not waited for."""
        if self._made_on is not asyncio.get_running_loop():
            return
        for _ in range(int(LET_GO_S / _LOOK_S)):
            if self.stopped is not None:
                await asyncio.wait([self.stopped], timeout=LET_GO_S)
                return
            await asyncio.sleep(_LOOK_S)

    async def _execute(self, fn: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        return await super()._execute(lambda: fn(*args, **kwargs))  # type: ignore[no-untyped-call]

    def stop(self) -> asyncio.Future[Any] | None:
        # A second request would wait for ever: its thread answers the first one and ends.
        if self._is_stopping:
            return None
        self._is_stopping = True
        self.stopped = super().stop()
        return self.stopped


async def _aiosqlite(connector: Callable[[], sqlite3.Connection], opened: weakref.WeakSet[Any]) -> aiosqlite.Connection:
    made: list[sqlite3.Connection] = []

    def connect() -> sqlite3.Connection:
        made.append(connector())
        return made[0]

    connection = _Discreet(connect, iter_chunk_size=64)
    connection._made_on = asyncio.get_running_loop()
    # A process that ends without closing its store must not wait for this thread.
    connection._thread.daemon = True
    opened.add(connection)
    try:
        return await connection
    except BaseException:
        # The thread answers this loop once more when it stops, and the loop may be closed next.
        if connection.stopped is not None:
            await connection.stopped
        # Whoever was cancelled while it was opened has nothing to close it by.
        for handle in made:
            handle.close()
        raise


async def _one_after_another(raw: sqlite3.Connection, opened: weakref.WeakSet[Any]) -> aiosqlite.Connection:
    """Return a connection to the one handle there is, once those that were given up have let go of it.

    One that was closed is gone. What is left was cancelled, and may have left a transaction behind.
    """
    for earlier in list(opened):
        await earlier.let_go()
    if raw.in_transaction:
        raw.rollback()
    return await _aiosqlite(lambda: raw, opened)


def begin_explicitly(engine: Engine) -> None:
    """Begin by a statement of ours: the driver's own begin comes too late and never is IMMEDIATE."""
    event.listen(engine, "connect", _sqlite_settings)
    event.listen(engine, "begin", _sqlite_begin)


def _sqlite_settings(connection: Any, record: object) -> None:
    cursor = connection.cursor()
    cursor.execute("PRAGMA foreign_keys = ON")
    cursor.execute("PRAGMA synchronous = FULL")
    cursor.execute("PRAGMA trusted_schema = OFF")
    cursor.close()


def _sqlite_begin(connection: Connection) -> None:
    options = connection.get_execution_options()
    if not options.get(IS_ONE_STATEMENT, False):
        connection.exec_driver_sql("BEGIN IMMEDIATE" if options.get(IS_WRITING, False) else "BEGIN DEFERRED")


def _refuse_what_is_over(path: Path, connection: Any, record: object, proxy: object) -> None:
    """Have a handle opened anew that was closed before a fork, or is on a file that another one took the place of."""
    handle = connection.driver_connection._conn
    if handle.generation != open_handles.generation:
        raise DisconnectionError("closed before a fork")
    if handle.file != _file_at(path):
        raise DisconnectionError("another file is in its place")


def _file_at(path: Path) -> tuple[int, int] | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def async_postgresql(url: StoreUrl, opened: weakref.WeakSet[Any]) -> AsyncEngine:
    """Return an engine on PostgreSQL that survives a restart of the server."""
    assert url.url is not None  # noqa: S101 -- parse_url gives every PostgreSQL store a URL
    engine = create_async_engine(
        url.url,
        # The driver begins nothing by itself: a transaction, its kind and its limits are one message to the server.
        isolation_level="AUTOCOMMIT",
        pool_size=8,
        max_overflow=8,
        pool_timeout=CONNECT_TIMEOUT_S,
        pool_use_lifo=True,
        # Whoever has begun a transaction has ended it, or given the connection up.
        pool_reset_on_return=None,
        hide_parameters=True,
        connect_args=_postgresql_arguments(url),
        execution_options={"schema_translate_map": {None: url.schema}} if url.schema else {},
    )

    def remember(connection: Any, record: object) -> None:
        driver: AsyncConnection[Any] = connection.driver_connection
        opened.add(driver)
        rows_arrays.register(driver)

    event.listen(engine.sync_engine, "connect", remember)
    event.listen(engine.sync_engine, "checkin", _note_rest)
    event.listen(engine.sync_engine, "checkout", partial(_refuse_what_is_lost, engine.sync_engine))
    event.listen(engine.sync_engine, "begin", _begin_at_server)
    return engine


def _note_rest(connection: object, record: Any) -> None:
    record.info["rests_since"] = time.monotonic()


def _refuse_what_is_lost(engine: Engine, connection: Any, record: Any, proxy: object) -> None:
    """Have a connection made anew that its server has left, as a restart does."""
    if _has_left(connection.driver_connection):
        raise DisconnectionError("the server has closed the connection")
    if time.monotonic() - record.info.get("rests_since", time.monotonic()) < RESTED_S:
        return
    try:
        engine.dialect.do_ping(connection)
    except engine.dialect.loaded_dbapi.Error as exc:
        raise DisconnectionError("the server does not answer on the connection") from exc


def _has_left(driver: Any) -> bool:
    return driver.pgconn.status != _CONNECTED or _is_closed(driver.pgconn)


def _is_closed(pgconn: Any) -> bool:
    """Whether the other side has ended: what it says unasked is read, and behind a farewell there is nothing."""
    speaks = select.poll()
    speaks.register(pgconn.socket, select.POLLIN)
    for _ in range(_FAREWELLS):
        if not speaks.poll(0):
            return False
        try:
            pgconn.consume_input()
        except Exception:
            return True
    return True


def _postgresql_arguments(url: StoreUrl) -> dict[str, Any]:
    assert url.url is not None  # noqa: S101 -- as above
    defaults = {
        "connect_timeout": CONNECT_TIMEOUT_S,
        "application_name": "keystead",
        # A network that is gone is told by the operating system, to synchronous callers as well.
        "tcp_user_timeout": SILENCE_S * 1000,
        "keepalives_idle": 30,
        "keepalives_interval": 5,
        "keepalives_count": 2,
    }
    given = {name: value for name, value in defaults.items() if name not in url.url.query}
    # Statements that the server keeps prepared do not survive every pooler between us and it: who has none may say so.
    return given | {"prepare_threshold": url.prepare_threshold}


def _begin_at_server(connection: Connection) -> None:
    options = connection.get_execution_options()
    if not options.get(IS_ONE_STATEMENT, False):
        text = _BEGIN_WRITING if options.get(IS_WRITING, False) else _BEGIN_READING
        raw: Any = connection.connection.dbapi_connection
        # Several statements in one message cannot be prepared.
        raw.run_async(lambda driver: driver.execute(text, prepare=False))


def _postgresql_begin(connection: Connection) -> None:
    if connection.get_execution_options().get(IS_WRITING, False):
        connection.exec_driver_sql(_POSTGRESQL_WRITING)


def sync_engine(url: StoreUrl) -> Engine:
    """Return an engine for one use by a synchronous caller: migrations, checks."""
    if url.kind == "postgresql":
        assert url.url is not None  # noqa: S101 -- as above
        engine = create_engine(
            url.url, poolclass=NullPool, hide_parameters=True, connect_args=_postgresql_arguments(url)
        )
        event.listen(engine, "begin", _postgresql_begin)
        return engine
    path = url.path
    assert path is not None  # noqa: S101 -- parse_url gives every SQLite store a path
    engine = create_engine(
        "sqlite:///store",
        creator=lambda: sqlite3.connect(
            sqlite_uri(path), uri=True, isolation_level=None, timeout=BUSY_TIMEOUT_S, check_same_thread=False
        ),
        poolclass=NullPool,
        hide_parameters=True,
    )
    begin_explicitly(engine)
    return engine
