"""Statements on the way of every request: built once, and run by the driver itself.

What SQLAlchemy does around a statement takes several times as long as the statement. So it runs each of these once,
and says by that what its text is and how its values are kept; from then on the driver is given both.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol
from weakref import WeakKeyDictionary

import aiosqlite
from sqlalchemy import ARRAY, ColumnElement, Delete, Dialect, Engine, Executable, Insert, LargeBinary, Select, Update
from sqlalchemy.engine import ExecutionContext
from sqlalchemy.engine.default import DefaultExecutionContext
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.types import TypeEngine

if TYPE_CHECKING:
    from keystead.stores.messages import Messages

_BY: Final = "keystead_runs_statements"

Row = dict[str, Any]
Convert = Callable[[Any], Any]
Statement = Select[Any] | Insert | Update | Delete


@dataclass(frozen=True, slots=True)
class _Text:
    """A statement for one database.

    Attributes:
        sql: as the driver takes it.
        message: as PostgreSQL takes it; empty for another database.
        constants: its own values, by name.
        given: how a value is written, by name; most are as they are.
        order: the names of the values, by their places.
        columns: of an answer.
        read: how a value of an answer is read, by name; most are as they are.
    """

    sql: str
    message: bytes
    constants: Mapping[str, Any]
    given: Sequence[tuple[str, Convert]]
    order: Sequence[str]
    columns: Sequence[str]
    read: Sequence[tuple[str, Convert]]

    def named(self, values: Mapping[str, Any]) -> Row:
        named = {**self.constants, **values}
        for name, convert in self.given:
            named[name] = convert(named[name])
        return named

    def values(self, values: Mapping[str, Any]) -> list[Any]:
        named = self.named(values)
        return [named[name] for name in self.order]

    def rows(self, found: Sequence[Sequence[Any]]) -> list[Row]:
        rows = [dict(zip(self.columns, row, strict=True)) for row in found]
        for name, convert in self.read:
            for row in rows:
                row[name] = convert(row[name])
        return rows


class TakesRows(Protocol):
    """A statement that is run for each of some rows."""

    async def run_many(self, connection: AsyncConnection, rows: Sequence[Mapping[str, Any]]) -> None:
        """Run it for each row, in their order."""


class Prepared:
    """A statement whose values, none of them a list, are given by name, each time all of them, when it runs.

    How many rows it changed is only known by what it returns.

    Args:
        statement: or what makes it for a dialect.
    """

    def __init__(self, statement: Statement | Callable[[str], Statement]) -> None:
        self._statement = statement
        self._texts: WeakKeyDictionary[Engine, _Text] = WeakKeyDictionary()

    async def run(self, connection: AsyncConnection, values: Mapping[str, Any]) -> list[Row]:
        """Return the rows of the answer. Errors are SQLAlchemy's or the driver's."""
        text = self._texts.get(connection.sync_engine)
        if text is None:
            return await self._learn(connection, values)
        try:
            by, given = runner_of(connection), text.values(values)
            if isinstance(by, aiosqlite.Connection):
                # One step of the connection's thread, where a cursor takes three.
                found: Sequence[Any] = list(await by.execute_fetchall(text.sql, given))
            else:
                found = await by.ask(text.message, given)
        except BaseException as failure:
            await _let_go_if_given_up(connection, failure)
            raise
        return text.rows(found)

    async def run_many(self, connection: AsyncConnection, rows: Sequence[Mapping[str, Any]]) -> None:
        """Run it for each of some rows of values, in one message where that can be; it answers nothing."""
        text = self._texts.get(connection.sync_engine)
        if text is None and rows:
            await self._learn(connection, rows[0])
            text, rows = self._texts[connection.sync_engine], rows[1:]
        if not rows or text is None:
            return
        try:
            driver = driver_of(connection)
            if isinstance(driver, aiosqlite.Connection):
                await driver.executemany(text.sql, [text.values(row) for row in rows])
            else:
                await driver.cursor().executemany(text.sql, [text.named(row) for row in rows])
        except BaseException as failure:
            await _let_go_if_given_up(connection, failure)
            raise

    async def _learn(self, connection: AsyncConnection, values: Mapping[str, Any]) -> list[Row]:
        made = self._statement
        statement = made if isinstance(made, Executable) else made(connection.dialect.name)
        # Once: nothing is kept of what SQLAlchemy made of it.
        result = await connection.execute(statement, values, execution_options={"compiled_cache": None})
        self._texts[connection.sync_engine] = _text(list(statement.exported_columns), result.context)
        return [dict(row) for row in result.mappings()] if result.returns_rows else []


def driver_of(connection: AsyncConnection) -> Any:
    """Return the driver's connection."""
    assert connection.sync_connection is not None  # noqa: S101 -- it is connected
    adapted = connection.sync_connection.connection.dbapi_connection
    return None if adapted is None else adapted.driver_connection


async def _let_go_if_given_up(connection: AsyncConnection, failure: BaseException) -> None:
    """Let a connection go on which a statement was given up: nobody knows what is still under way on it."""
    if not isinstance(failure, Exception):
        await connection.invalidate()


def runner_of(connection: AsyncConnection) -> Messages | aiosqlite.Connection:
    """Return what runs statements: messages to PostgreSQL, or SQLite's driver."""
    assert connection.sync_connection is not None  # noqa: S101 -- it is connected
    info = connection.sync_connection.connection.info
    by: Messages | aiosqlite.Connection | None = info.get(_BY)
    if by is None:
        by = info[_BY] = _runs(driver_of(connection))
    return by


def _runs(driver: Any) -> Messages | aiosqlite.Connection:
    if isinstance(driver, aiosqlite.Connection):
        return driver
    # The driver is there where there is such a server.
    from keystead.stores.messages import Messages

    return Messages(driver)


def _text(columns: Sequence[ColumnElement[Any]], context: ExecutionContext) -> _Text:
    compiled, dialect = context.compiled, context.dialect
    assert isinstance(compiled, SQLCompiler)  # noqa: S101 -- it has just run
    assert isinstance(context, DefaultExecutionContext)  # noqa: S101 -- of every dialect here
    assert not compiled.post_compile_params, "a list of values makes another statement each time"  # noqa: S101
    binds = {name: bind for bind, name in compiled.bind_names.items()}
    given = [(name, _written(bind.type, dialect)) for name, bind in binds.items()]
    read = [(str(column.key), column.type.dialect_impl(dialect).result_processor(dialect, None)) for column in columns]
    sql, order = str(context.statement), (compiled.positiontup or []) if compiled.positional else list(binds)
    message = "" if compiled.positional else sql % {name: f"${place}" for place, name in enumerate(order, 1)}
    return _Text(
        sql,
        message.encode(),
        # Not the values that the compiled form has: it may be that of another statement, alike but for its values.
        {name: context.compiled_parameters[0][name] for name, bind in binds.items() if not bind.required},
        [(name, convert) for name, convert in given if convert is not None],
        order,
        [name for name, _ in read],
        [(name, convert) for name, convert in read if convert is not None],
    )


def _written(kind: TypeEngine[Any], dialect: Dialect) -> Convert | None:
    """Return how a value of a type is written; bytes are, and lists of them, as they are."""
    of = kind.item_type if isinstance(kind, ARRAY) else kind
    return None if isinstance(of, LargeBinary) else kind.dialect_impl(dialect).bind_processor(dialect)
