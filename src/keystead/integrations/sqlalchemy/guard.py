"""Statements that would put something other than a row's own ciphertext into an encrypted column are refused.

Plain values are refused by the column's type wherever they pass. Here is what no type sees: SQL expressions, rows from
a SELECT, upserts, and a record or tenant that changes under a ciphertext bound to it. Rows that were sealed beforehand
pass, and what index keys they were hashed under is remembered.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Any

from sqlalchemy import ClauseElement, Column, Engine, FromClause, event
from sqlalchemy.engine import Connection
from sqlalchemy.sql.dml import Insert, Update, ValuesBase
from sqlalchemy.sql.elements import BindParameter, Null
from sqlalchemy.types import NullType

from keystead.crypto.envelope import is_envelope
from keystead.errors import InvalidInputError
from keystead.fields import Field
from keystead.integrations.sqlalchemy.binding import as_itself, binding_of
from keystead.integrations.sqlalchemy.commit import note_indexes
from keystead.integrations.sqlalchemy.emptied import is_in_flush
from keystead.integrations.sqlalchemy.located import require_here
from keystead.integrations.sqlalchemy.place import Place, column_named, encrypted_columns, names_of, tables_of
from keystead.integrations.sqlalchemy.type import EncryptedBytes
from keystead.integrations.sqlalchemy.whose import Assignment, SealedCiphertext, bound_to, require_own
from keystead.integrations.sqlalchemy.window import Window

_IN_SESSION = "load the objects and change them in a session"
_SHOWS_NULL = "encrypts its NULLs too, and this statement would show one"
_CURE = f"{_IN_SESSION}, or prepare the rows: sealed_rows(engine, Model, rows) for INSERT, sealed_updates for UPDATE"
_OWNER_CURE = (
    f"{_IN_SESSION}, or give the field's value along with sealed_updates; a statement that is only to find its rows by "
    "that names it in WHERE, and not among the values"
)


def watch() -> None:
    """Look at every statement of every engine: one that nobody bound must not write past the keys either."""
    if not event.contains(Engine, "before_execute", _refuse):
        event.listen(Engine, "before_execute", _refuse)


def refuse_nested(statement: Insert | Update) -> None:
    """Refuse to write an encrypted column within another statement, where what it is given is not looked at.

    Raises:
        InvalidInputError: it does so, or changes what the column is bound to or searched by.
    """
    for column, field in _columns(statement):
        names = {name for row in _given(statement) for name in row}
        if isinstance(statement, Insert):
            _check_owner(column.table, field, _set_by_upsert(statement))
            names.update(map(_name, statement._select_names or ()), _set_by_upsert(statement))
        else:
            _check_owner(column.table, field, names)
        place = getattr(column.type, "place", None)
        window = () if place is None or place.window is None else names_of(place.window.column)
        if names & {*names_of(column), *window, *_named(column.table, field.index_columns)}:
            _raise(field, "is not written by a statement within another, such as a CTE")


def _refuse(
    connection: Connection,
    statement: Any,
    multiparams: Sequence[Mapping[str, Any]],
    params: Mapping[str, Any],
    options: Mapping[str, Any],
) -> None:
    if not isinstance(statement, Insert | Update):
        return
    columns = _columns(statement)
    if not columns:
        return
    sent = [*multiparams] or [params or {}]
    rows = [Assignment({**each, **row} if row else each, each) for row in _given(statement) for each in sent]
    for column, field in columns:
        names = names_of(column)
        _check_rows(connection, statement, column, field, rows)
        written = [row.find(names) for row in rows]
        if any(value is not None for value in written):
            require_here(connection, column, field, options)
            _note_indexes(connection, field, written)
            require_own(connection, statement, column, field, rows)
        if isinstance(statement, Insert):
            if set(names).intersection(map(_name, statement._select_names or ())):
                _raise(field, "cannot be inserted from a SELECT: each ciphertext belongs to its row")
            if set(names) & _set_by_upsert(statement):
                _raise(field, "cannot be set by an upsert, which does not know the row it meets")
            _check_owner(column.table, field, _set_by_upsert(statement))


def _check_rows(
    connection: Connection, statement: Insert | Update, column: Column[Any], field: Field, rows: Sequence[Assignment]
) -> None:
    """Refuse expressions, values in clear, and what leaves something behind that does not belong to its row."""
    names = names_of(column)
    place = getattr(column.type, "place", None)
    hashes: list[tuple[list[str], set[str]]] = []
    for row in rows:
        if isinstance(place, Place) and place.window is not None:
            _check_window(statement, field, place.window, set(names), row)
        if any(_is_expression(row.values[name]) for name in names if name in row.values):
            _raise(field, "takes ciphertext, not an SQL expression")
        is_given, value = any(name in row.values for name in names), row.find(names)
        if isinstance(statement, Insert):
            is_meant = is_given or not (isinstance(place, Place) and place.is_of_subclass)
            if field.encrypt_null and is_meant and (value is None or isinstance(value, Null)):
                _raise(field, _SHOWS_NULL)
            if _is_ciphertext(value) and not field.encrypt_null:
                # Once for all rows, but not for a table that is declared without them and gets no ciphertext.
                hashes = hashes or _hash_columns(column, field)
                _check_hashed(field, hashes, row)
            continue
        if not is_given:
            _check_owner(column.table, field, row.values.keys())
            continue
        if isinstance(value, SealedCiphertext) and not value.is_update:
            _raise(field, "was sealed for an INSERT, with defaults that an UPDATE would write over what is there")
        if value is None or isinstance(value, Null):
            _check_emptied(connection, column, field, row)
        elif _is_ciphertext(value):
            _check_index(column, field, row)


def _hash_columns(column: Column[Any], field: Field) -> list[tuple[list[str], set[str]]]:
    """Return the two columns of each index that has any, and what a statement may call them."""
    found = [[index.column(field.column, parity) for parity in (0, 1)] for index in field.indexes if not index.many]
    return [(columns, _named(column.table, columns)) for columns in found]


def _check_hashed(field: Field, hashes: Sequence[tuple[list[str], set[str]]], row: Assignment) -> None:
    """Refuse to insert a value that no search would find, and that could be there twice."""
    for columns, names in hashes:
        if not any(name in row.values and not _is_null(row.values[name], row.sent) for name in names):
            _raise(field, f"is inserted by this statement, which has to write {' or '.join(columns)} too")


def _check_index(column: Column[Any], field: Field, row: Assignment) -> None:
    """Refuse to change a value where the hashes or the words of the former one would stay."""
    if field.token_index is not None:
        _raise(field, "is changed by this statement, which leaves the rows of its words", _IN_SESSION)
    if not all(row.values.keys() & _named(column.table, (each,)) for each in field.index_columns):
        _raise(field, f"is changed by this statement, which has to write {', '.join(field.index_columns)} too")


def _check_owner(table: FromClause, field: Field, names: AbstractSet[str]) -> None:
    """Refuse to change a record or a tenant under a ciphertext that stays."""
    if changed := [name for name in bound_to(field) if names & _named(table, (name,))]:
        _raise(field, f"is bound to {', '.join(changed)}, which this statement changes alone", _OWNER_CURE)


def _check_emptied(connection: Connection, column: Column[Any], field: Field, row: Assignment) -> None:
    """Refuse to set a column to NULL where that leaves something of the value it had."""
    empty = {name for name, value in row.values.items() if _is_null(value, row.sent)}
    if not empty & set(names_of(column)):
        return
    if field.encrypt_null:
        _raise(field, _SHOWS_NULL)
    if field.token_index is not None and not is_in_flush(connection, field):
        _raise(field, "is emptied by this statement, which leaves the rows of its words", _IN_SESSION)
    if not all(empty & _named(column.table, (each,)) for each in field.index_columns):
        _raise(field, f"is emptied by this statement, which has to set {', '.join(field.index_columns)} to NULL too")


def _note_indexes(connection: Connection, field: Field, written: Sequence[Any]) -> None:
    """Remember under which index keys rows were hashed that come as bytes, and not as the boxes of a flush."""
    values = [value for value in written if _is_ciphertext(value)]
    if not values:
        return
    cipher = binding_of(connection.dialect).cipher(field)
    if field.indexes:
        versions = {value.versions for value in values if isinstance(value, SealedCiphertext)}
        note_indexes(connection, cipher, frozenset.intersection(*versions) if versions else None)


def _check_window(
    statement: Insert | Update, field: Field, window: Window, keys: AbstractSet[str], row: Assignment
) -> None:
    """Refuse to write values in clear, and to leave or empty one where its ciphertext is not written along."""
    plain = {window.column.key, window.column.name, window.key}
    name = window.column.name
    if any(key in plain and not _is_null(value, row.sent) for key, value in row.values.items()):
        _raise(field, f"is being encrypted: nobody writes values in clear any more, to column {name}")
    names = row.values.keys()
    if isinstance(statement, Update) and bool(names & keys) != bool(names & plain):
        _raise(field, f"is being encrypted: its ciphertext is written together with {name}, which becomes NULL")


def _columns(statement: ValuesBase) -> list[tuple[Column[Any], Field]]:
    return [each for table in tables_of(statement) for each in encrypted_columns(table)]


def _named(table: FromClause, columns: Iterable[str]) -> set[str]:
    """Return what a statement may call some columns of a table."""
    return {name for each in columns for name in names_of(column_named(table, each))}


def _given(statement: ValuesBase) -> list[dict[str, Any]]:
    """Return what a statement itself gives the columns of each row."""
    rows: list[Any] = [row for several in statement._multi_values for row in several] or [statement._values or {}]
    keys = [column.key for column in statement.table.c]
    return [
        {
            _name(name): value
            for name, value in (row.items() if isinstance(row, Mapping) else zip(keys, row, strict=False))
        }
        for row in rows
    ]


def _set_by_upsert(statement: Insert) -> set[str]:
    return set(map(_name, getattr(statement._post_values_clause, "update_values_to_set", None) or ()))


def _name(column: Any) -> str:
    return str(column if isinstance(column, str) else column.key)


def _is_ciphertext(value: Any) -> bool:
    if isinstance(value, SealedCiphertext):
        return True
    return isinstance(value, bytes | bytearray | memoryview) and is_envelope(bytes(value))


def _is_expression(value: Any) -> bool:
    if isinstance(value, BindParameter):
        return not isinstance(value.type, EncryptedBytes | NullType)
    is_sql = isinstance(value, ClauseElement) or hasattr(value, "__clause_element__")
    return is_sql and not isinstance(value, Null)


def _is_null(value: Any, sent: Mapping[str, Any]) -> bool:
    """Return whether a value is NULL, which for a parameter may stand in what is sent along."""
    if isinstance(value, BindParameter):
        if value.key in sent:
            return sent[value.key] is None
        return value.value is None and not value.required
    return value is None or isinstance(value, Null)


def _raise(field: Field, why: str, cure: str = _CURE) -> None:
    raise as_itself(InvalidInputError(f"field {field.id} {why}; {cure}"))
