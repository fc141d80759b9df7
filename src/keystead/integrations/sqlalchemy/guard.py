"""Statements that would put something other than a row's own ciphertext into an encrypted column are refused.

Plain values are refused by the column's type wherever they pass. Here is what no type sees: SQL expressions, rows from
a SELECT, upserts, and a record or tenant that changes under a ciphertext bound to it. Rows that were sealed beforehand
pass, and what index keys they were hashed under is remembered.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from sqlalchemy import ClauseElement, Column, Engine, Table, event
from sqlalchemy.engine import Connection
from sqlalchemy.sql.dml import Insert, Update, ValuesBase
from sqlalchemy.sql.elements import BindParameter, Null
from sqlalchemy.types import NullType

from keystead.errors import InvalidInputError
from keystead.fields import Field
from keystead.integrations.sqlalchemy.binding import as_itself, binding_of
from keystead.integrations.sqlalchemy.commit import SealedCiphertext, note_indexes
from keystead.integrations.sqlalchemy.emptied import is_in_flush
from keystead.integrations.sqlalchemy.place import Place, column_named, encrypted_columns
from keystead.integrations.sqlalchemy.type import EncryptedBytes
from keystead.integrations.sqlalchemy.window import Window

_IN_SESSION = "load the objects and change them in a session"
_CURE = f"{_IN_SESSION}, or prepare the rows: sealed_rows(engine, Model, rows) for INSERT, sealed_updates for UPDATE"


def watch(engine: Engine) -> None:
    """Look at every statement of an engine."""
    if not event.contains(engine, "before_execute", _refuse):
        event.listen(engine, "before_execute", _refuse)


def _refuse(
    connection: Connection,
    statement: Any,
    multiparams: Sequence[Mapping[str, Any]],
    params: Mapping[str, Any],
    options: Mapping[str, Any],
) -> None:
    if not isinstance(statement, Insert | Update) or not isinstance(statement.table, Table):
        return
    for column, field in encrypted_columns(statement.table):
        keys = _keys(column)
        given = list(_assigned(statement))
        place = getattr(column.type, "place", None)
        written = _written(keys, given, (*(multiparams or ()), params or {}))
        if field.indexes:
            _note_indexes(connection, field, written)
        if isinstance(place, Place) and place.window is not None:
            sent = [pair for each in (*(multiparams or ()), params or {}) for pair in each.items()]
            _check_window(statement, field, place.window, keys, [*given, *sent])
        if any(_is_expression(value) for name, value in given if name in keys):
            _raise(field, "takes ciphertext, not an SQL expression")
        if isinstance(statement, Update):
            if any(isinstance(value, SealedCiphertext) and not value.is_update for value in written):
                _raise(field, "was sealed for an INSERT, with defaults that an UPDATE would write over what is there")
            names = {name for name, _ in given}.union(*(multiparams or ()), params or ())
            if not names & keys:
                _check_owner(statement.table, field, names)
            else:
                _check_emptied(connection, column, field, dict(given), (*(multiparams or ()), params))
            continue
        if _has(statement._select_names, keys):
            _raise(field, "cannot be inserted from a SELECT: each ciphertext belongs to its row")
        set_by_upsert = set(map(_name, getattr(statement._post_values_clause, "update_values_to_set", None) or ()))
        if set_by_upsert & keys:
            _raise(field, "cannot be set by an upsert, which does not know the row it meets")
        _check_owner(statement.table, field, set_by_upsert)


def _check_owner(table: Table, field: Field, names: set[str]) -> None:
    """Refuse to change a record or a tenant under a ciphertext that stays."""
    bound = [column_named(table, name) for name in (*field.record_columns, field.tenant) if name]
    if changed := [each.name for each in bound if names & _keys(each)]:
        _raise(field, f"is bound to {', '.join(changed)}, which this statement changes alone")


def _check_emptied(
    connection: Connection,
    column: Column[Any],
    field: Field,
    given: Mapping[str, Any],
    rows: Sequence[Mapping[str, Any] | None],
) -> None:
    """Refuse to set a column to NULL where that leaves something of the value it had."""
    keys = _keys(column)
    hashes = [_keys(column_named(column.table, name)) for name in field.index_columns]
    for row in rows:
        values = {**given, **(row or {})}
        empty = {name for name, value in values.items() if _is_null(value, row or {})}
        if not empty & keys:
            continue
        if field.encrypt_null:
            _raise(field, "encrypts its NULLs too, and this statement would show one")
        if field.token_index is not None and not is_in_flush(connection, field):
            _raise(field, "is emptied by this statement, which leaves the rows of its words", _IN_SESSION)
        if not all(empty & each for each in hashes):
            _raise(
                field, f"is emptied by this statement, which has to set {', '.join(field.index_columns)} to NULL too"
            )


def _written(keys: set[str], given: Sequence[tuple[str, Any]], rows: Sequence[Mapping[str, Any]]) -> list[Any]:
    """Return what a statement and its rows write into a column."""
    values = [value.value if isinstance(value, BindParameter) else value for name, value in given if name in keys]
    return values + [row[name] for row in rows for name in keys if name in row]


def _note_indexes(connection: Connection, field: Field, values: Sequence[Any]) -> None:
    """Remember under which index keys rows were hashed that come as bytes, and not as the boxes of a flush."""
    cipher = binding_of(connection.dialect).cipher(field)
    if versions := [value.versions for value in values if isinstance(value, SealedCiphertext)]:
        note_indexes(connection, cipher, frozenset.intersection(*versions))
    elif any(isinstance(value, bytes) for value in values):
        note_indexes(connection, cipher)


def _check_window(
    statement: Insert | Update, field: Field, window: Window, keys: set[str], given: Sequence[tuple[str, Any]]
) -> None:
    """Refuse to write values in clear, and to leave or empty one where its ciphertext is not written along."""
    plain = {window.column.key, window.column.name, window.key}
    name = window.column.name
    if any(key in plain and not _is_null(value) for key, value in given):
        _raise(field, f"is being encrypted: nobody writes values in clear any more, to column {name}")
    names = {key for key, _ in given}
    if isinstance(statement, Update) and bool(names & keys) != bool(names & plain):
        _raise(field, f"is being encrypted: its ciphertext is written together with {name}, which becomes NULL")


def _keys(column: Column[Any]) -> set[str]:
    """Return the names that a statement may call a column by: its own, and the attribute's."""
    place = getattr(column.type, "place", None)
    return {column.key, column.name} if place is None else {column.key, column.name, place.key}


def _has(names: Any, keys: set[str]) -> bool:
    return any(_name(each) in keys for each in names or ())


def _assigned(statement: ValuesBase) -> Iterator[tuple[str, Any]]:
    """Return each column that a statement itself gives a value, with the value."""
    rows: list[Any] = [statement._values or {}]
    for several in statement._multi_values:
        rows.extend(several)
    for row in rows:
        if isinstance(row, Mapping):
            yield from ((_name(name), value) for name, value in row.items())
        else:
            yield from zip((column.key for column in statement.table.c), row, strict=False)


def _name(column: Any) -> str:
    return str(column if isinstance(column, str) else column.key)


def _is_expression(value: Any) -> bool:
    if isinstance(value, BindParameter):
        return not isinstance(value.type, EncryptedBytes | NullType)
    is_sql = isinstance(value, ClauseElement) or hasattr(value, "__clause_element__")
    return is_sql and not isinstance(value, Null)


def _is_null(value: Any, row: Mapping[str, Any] = MappingProxyType({})) -> bool:
    """Return whether a value is NULL, which for a parameter may stand in the row that is sent along."""
    if isinstance(value, BindParameter):
        if value.key in row:
            return row[value.key] is None
        return value.value is None and not value.required
    return value is None or isinstance(value, Null)


def _raise(field: Field, why: str, cure: str = _CURE) -> None:
    raise as_itself(InvalidInputError(f"field {field.id} {why}; {cure}"))
