"""The table of a token index: one row for each word of a value, under each live index key."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final
from weakref import WeakKeyDictionary

from sqlalchemy import Column, ColumnElement, ForeignKey, LargeBinary, Table, delete, insert, select
from sqlalchemy.engine import Connection

from keystead.errors import ConfigurationError, InvalidInputError
from keystead.fields import Field

if TYPE_CHECKING:
    from sqlalchemy.sql.elements import BindParameter

    from keystead.integrations.sqlalchemy.comparator import EncryptedComparator


_FIELDS: Final[WeakKeyDictionary[Table, str]] = WeakKeyDictionary()
"""Whose words are in a table that was made here."""


def token_table(field: Field, table: Table, record: Column[Any]) -> Table:
    """Return the table of the field's words, made in the same metadata; a row goes when its record goes.

    Raises:
        ConfigurationError: there is a table of that name, of another field or of the application.
    """
    name, index = field.token_table, field.token_index
    if index is None:
        raise InvalidInputError(f"field {field.id} has no token index")
    known = table.metadata.tables.get(name if table.schema is None else f"{table.schema}.{name}")
    if known is not None:
        if _FIELDS.get(known, field.id) != field.id or {*known.c.keys()} != {"token", "record"}:
            raise ConfigurationError(
                f"the words of field {field.id} go into a table named {name}, and there is another of that name: "
                "rename the table or the column"
            )
        return known
    is_key = record.unique or tuple(table.primary_key) == (record,)
    reference = (ForeignKey(record, ondelete="CASCADE", onupdate="CASCADE"),) if is_key else ()
    made = Table(
        name,
        table.metadata,
        Column("token", LargeBinary(index.stored_size), primary_key=True),
        Column("record", record.type, *reference, primary_key=True, autoincrement=False, index=True),
        schema=table.schema,
    )
    _FIELDS[made] = field.id
    return made


def write_tokens(connection: Connection, table: Table, record: object, tokens: list[bytes]) -> None:
    """Replace the words of a record."""
    connection.execute(delete(table).where(table.c.record == record))
    if tokens:
        connection.execute(insert(table), [{"token": token, "record": record} for token in tokens])


def found_by_token(
    column: EncryptedComparator, field: Field, table: Table, sought: list[BindParameter[Any]]
) -> ColumnElement[bool]:
    """Return whether the row's record has one of the token hashes ``sought``."""
    record = column.column(field.record_columns[0])
    return record.in_(select(table.c.record).where(table.c.token.in_(sought)))
