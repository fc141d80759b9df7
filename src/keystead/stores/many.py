"""Rows that are inserted together, in one statement where the database takes whole columns."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from sqlalchemy import ARRAY, Dialect, Insert, LargeBinary, Table, Text, bindparam, func, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.types import String, TypeEngine, UserDefinedType

from keystead.stores.prepared import Prepared
from keystead.stores.rows_arrays import ByteaArray, bytea_array
from keystead.stores.transaction import insert_into

AnyInsert = sqlite.Insert | postgresql.Insert


class InsertMany:
    """An INSERT of rows, each of which has all columns.

    PostgreSQL is given a list for each column, and takes that in a tenth of the time of a statement for each row.

    Args:
        finish: what it does about rows that are there already.
    """

    def __init__(self, table: Table, finish: Callable[[AnyInsert], Insert] = lambda insert: insert) -> None:
        self._names: Final = [column.name for column in table.columns]
        self._by_row: Final = Prepared(lambda dialect: finish(insert_into(table, dialect)))
        columns = (bindparam(column.name, type_=_list_of(column.type)) for column in table.columns)
        given = func.unnest(*columns)
        rows = select(given.table_valued(*self._names).render_derived())
        self._by_column: Final = Prepared(finish(postgresql.insert(table).from_select(self._names, rows)))

    async def run_many(self, connection: AsyncConnection, rows: Sequence[Mapping[str, Any]]) -> None:
        """Insert rows, in their order. Errors are SQLAlchemy's or the driver's."""
        if rows and connection.dialect.name == "postgresql":
            await self._by_column.run(connection, {name: [row[name] for row in rows] for name in self._names})
        else:
            await self._by_row.run_many(connection, rows)


class _ListOfBytes(UserDefinedType[Sequence[bytes | None]]):
    """A list of bytes on PostgreSQL, in its binary form: half as long as what the driver makes of it, in less time."""

    cache_ok = True
    render_bind_cast = True

    def get_col_spec(self, **options: Any) -> str:
        """Return the name of the type."""
        return "BYTEA[]"

    def bind_processor(self, dialect: Dialect) -> Callable[[Any], ByteaArray]:
        """Return what writes a list."""
        return bytea_array


def _list_of(kind: TypeEngine[Any]) -> TypeEngine[Any]:
    """Return a type that cuts nothing off: a text that is too long is for the column to refuse."""
    if isinstance(kind, LargeBinary):
        return _ListOfBytes()
    return ARRAY(Text() if isinstance(kind, String) else kind)
