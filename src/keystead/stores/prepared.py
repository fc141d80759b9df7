"""Statements on the way of every request: built once, and run by the driver itself.

What SQLAlchemy does around a statement takes several times as long as the statement. So it runs each of these once,
and says by that what its text is and how its values are kept; from then on the driver is given both.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol, TypeVar
from weakref import WeakKeyDictionary

import aiosqlite
from sqlalchemy import ColumnElement, Delete, Engine, Executable, Insert, Select, Update
from sqlalchemy.engine import ExecutionContext
from sqlalchemy.engine.default import DefaultExecutionContext
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.sql.compiler import SQLCompiler

T = TypeVar("T")

_BY: Final = "keystead_runs_statements"

Row = dict[str, Any]
Convert = Callable[[Any], Any]
Statement = Select[Any] | Insert | Update | Delete


@dataclass(frozen=True, slots=True)
class _Text:
    """A statement for one database.

    Attributes:
        sql: as the driver takes it.
        constants: its own values, by name.
        given: how a value is written, by name; most are as they are.
        order: the names of the values, where the driver takes them by place.
        columns: of an answer.
        read: how a value of an answer is read, by name; most are as they are.
    """

    sql: str
    constants: Mapping[str, Any]
    given: Sequence[tuple[str, Convert]]
    order: Sequence[str] | None
    columns: Sequence[str]
    read: Sequence[tuple[str, Convert]]

    def values(self, values: Mapping[str, Any]) -> Row | list[Any]:
        named = {**self.constants, **values}
        for name, convert in self.given:
            named[name] = convert(named[name])
        return named if self.order is None else [named[name] for name in self.order]

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
        found = await _unless_given_up(connection, _asked(connection, text, values))
        return text.rows(found)

    async def run_many(self, connection: AsyncConnection, rows: Sequence[Mapping[str, Any]]) -> None:
        """Run it for each of some rows of values, in one message where that can be; it answers nothing."""
        text = self._texts.get(connection.sync_engine)
        if text is None and rows:
            await self._learn(connection, rows[0])
            text, rows = self._texts[connection.sync_engine], rows[1:]
        if not rows or text is None:
            return
        given = [text.values(row) for row in rows]
        await _unless_given_up(connection, _told(connection, text, given))

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
    return connection.sync_connection.connection.driver_connection


async def _unless_given_up(connection: AsyncConnection, answer: Coroutine[Any, Any, T]) -> T:
    """Return an answer; a connection on which it was given up goes, for nobody knows what is still under way on it."""
    try:
        return await answer
    except BaseException as failure:
        if not isinstance(failure, Exception):
            await connection.invalidate()
        raise


async def _asked(connection: AsyncConnection, text: _Text, values: Mapping[str, Any]) -> Sequence[Sequence[Any]]:
    by = _by(connection)
    if isinstance(by, aiosqlite.Connection):
        # One step of the connection's thread, where a cursor takes three.
        rows: Any = await by.execute_fetchall(text.sql, text.values(values))
        return list(rows)
    await by.execute(text.sql, text.values(values))
    found: Sequence[Sequence[Any]] = await by.fetchall() if text.columns else ()
    return found


async def _told(connection: AsyncConnection, text: _Text, rows: Sequence[Any]) -> None:
    await _by(connection).executemany(text.sql, rows)


def _by(connection: AsyncConnection) -> Any:
    """Return what runs statements: the driver's connection, or a cursor of it, which learns how values are written."""
    by = connection.info.get(_BY)
    if by is None:
        driver = driver_of(connection)
        by = connection.info[_BY] = driver if isinstance(driver, aiosqlite.Connection) else driver.cursor()
    return by


def _text(columns: Sequence[ColumnElement[Any]], context: ExecutionContext) -> _Text:
    compiled, dialect = context.compiled, context.dialect
    assert isinstance(compiled, SQLCompiler)  # noqa: S101 -- it has just run
    assert isinstance(context, DefaultExecutionContext)  # noqa: S101 -- of every dialect here
    assert not compiled.post_compile_params, "a list of values makes another statement each time"  # noqa: S101
    binds = {name: bind for bind, name in compiled.bind_names.items()}
    given = [(name, bind.type.dialect_impl(dialect).bind_processor(dialect)) for name, bind in binds.items()]
    read = [(str(column.key), column.type.dialect_impl(dialect).result_processor(dialect, None)) for column in columns]
    return _Text(
        str(context.statement),
        # Not the values that the compiled form has: it may be that of another statement, alike but for its values.
        {name: context.compiled_parameters[0][name] for name, bind in binds.items() if not bind.required},
        [(name, convert) for name, convert in given if convert is not None],
        compiled.positiontup if compiled.positional else None,
        [name for name, _ in read],
        [(name, convert) for name, convert in read if convert is not None],
    )
