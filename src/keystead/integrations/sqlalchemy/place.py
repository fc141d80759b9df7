"""Where one encrypted column stands: its field, its table, and the attributes a mapped class reads beside it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Alias, Column, FromClause, Join, Table
from sqlalchemy.orm import InstanceState, Mapper
from sqlalchemy.orm.base import LoaderCallableStatus
from sqlalchemy.sql.dml import ValuesBase

from keystead.errors import ConfigurationError
from keystead.fields import Field
from keystead.integrations.sqlalchemy.held import as_held
from keystead.integrations.sqlalchemy.window import Window

INFO: Final = "keystead.places"
"""Where a mapped class keeps its places, in its manager's ``info``."""


@dataclass(slots=True, eq=False)
class Place:
    """See the module. The attributes' keys are known once the class is configured."""

    field: Field
    table: Table
    column: Column[Any]
    is_boxed: bool
    record_kinds: tuple[type, ...]
    tenant_kind: type | None
    subject_kind: type | None
    tokens: Table | None
    window: Window | None = None
    is_of_subclass: bool = False
    """Whether other classes have rows in its table that have no such attribute."""
    key: str = ""
    record_keys: tuple[str, ...] = ()
    tenant_key: str | None = None
    subject_key: str | None = None
    index_keys: dict[str, str] = dataclasses.field(default_factory=dict)

    def configure(self, mapper: Mapper[Any]) -> None:
        """Learn under which attributes a class has the columns."""

        def key_of(name: str) -> str:
            return mapper.get_property_by_column(column_named(self.table, name)).key

        self.key = mapper.get_property_by_column(self.column).key
        self.record_keys = tuple(map(key_of, self.field.record_columns))
        self.tenant_key = None if self.field.tenant is None else key_of(self.field.tenant)
        self.subject_key = None if self.field.subject is None else key_of(self.field.subject)
        if self.window is not None:
            self.window.key = mapper.get_property_by_column(self.window.column).key
        self.index_keys = {name: key_of(name) for name in self.field.index_columns}

    def owner(self, state: InstanceState[Any], *, committed: bool) -> tuple[object, str | None]:
        """Return the record and the tenant of an object's row: as the database has it, or as it is about to be."""
        tenant = None if self.tenant_key is None else self.read_tenant(_value(state, self.tenant_key, committed))
        if len(self.record_keys) == 1:
            return as_held(self.record_kinds[0], _value(state, self.record_keys[0], committed)), tenant
        return self.read_record([_value(state, key, committed) for key in self.record_keys]), tenant

    def subject(self, state: InstanceState[Any], *, committed: bool) -> object:
        """Return what an object's subject column holds; None where the field has none."""
        return None if self.subject_key is None else self.read_subject(_value(state, self.subject_key, committed))

    def read_subject(self, value: object) -> object:
        """Return the subject that is named by a value of its column's attribute; errors as ``read_record``."""
        return value if self.subject_kind is None or value is None else as_held(self.subject_kind, value)

    def read_record(self, values: Sequence[object]) -> object:
        """Return the record that is named by values of its columns' attributes.

        Raises:
            InvalidInputError: a column would hold another value than it is given.
        """
        held = tuple(map(as_held, self.record_kinds, values))
        return held[0] if len(held) == 1 else held

    def read_tenant(self, value: object) -> str | None:
        """Return the tenant that is named by a value of its column's attribute; errors as ``read_record``."""
        return self.field.read_tenant(value if self.tenant_kind is None else as_held(self.tenant_kind, value))

    def record_held(self, state: InstanceState[Any], *, committed: bool) -> object:
        """Return what the record column of an object's row holds, where there is one: what its words name it by."""
        return _value(state, self.record_keys[0], committed)


def column_named(table: FromClause, name: str) -> Column[Any]:
    """Return a table's column by its name, whatever its key.

    Raises:
        ConfigurationError: a table that was declared without it.
    """
    for column in table.c:
        if isinstance(column, Column) and column.name == name:
            return column
    raise ConfigurationError(f"table {table} is declared without column {name!r}, which an encrypted column needs")


def names_of(column: Column[Any]) -> tuple[str, ...]:
    """Return the names that a statement may call a column by: the encrypted attribute's, and its own."""
    place = getattr(column.type, "place", None)
    own = (column.key, column.name)
    return (place.key, *own) if isinstance(place, Place) else own


def places_of(mapper: Mapper[Any]) -> tuple[Place, ...]:
    """Return the encrypted columns of a mapped class."""
    found: tuple[Place, ...] = mapper.class_manager.info.get(INFO, ())
    return found


def tables_of(statement: ValuesBase) -> Iterator[Table]:
    """Return the tables that a statement writes, whatever stands for them in it."""
    # Of a bulk statement on a class in several tables the ORM makes one for each, and says in a note for which.
    notes = statement._annotations
    yield from _tables(notes.get("_emit_update_table", notes.get("_emit_insert_table", statement.table)))


def _tables(target: FromClause) -> Iterator[Table]:
    if isinstance(target, Table):
        yield target
    elif isinstance(target, Join):
        yield from _tables(target.left)
        yield from _tables(target.right)
    elif isinstance(target, Alias) and isinstance(target.element, FromClause):
        yield from _tables(target.element)


def encrypted_columns(table: FromClause) -> list[tuple[Column[Any], Field]]:
    """Return the encrypted columns of a table, with their fields."""
    # Not kept in the table's info, which Alembic writes into migrations.
    found = [(column, getattr(column.type, "field", None)) for column in table.c if isinstance(column, Column)]
    return [(column, field) for column, field in found if isinstance(field, Field)]


def _value(state: InstanceState[Any], key: str, committed: bool) -> Any:
    if committed:
        before = state.committed_state.get(key) if state.committed_state else None
        if before is not None and not isinstance(before, LoaderCallableStatus):
            return before
    values = state.dict
    return values[key] if key in values else state.manager[key].impl.get(state, values)
