"""What an encrypted column needs around it, made when its class is mapped.

Its field, from ``encrypted(...)`` and the table; index columns; a row key where the primary key is not known before the
insert; the table of a token index; and the mapper's events that seal.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final
from uuid import UUID

from sqlalchemy import Column, LargeBinary, Table, Uuid, event
from sqlalchemy.orm import InstanceState, Mapper
from sqlalchemy.sql.schema import Sequence

from keystead.errors import ConfigurationError
from keystead.fields import Field
from keystead.fields.row_keys import ROW_KEY, new_row_key
from keystead.integrations.sqlalchemy import flush
from keystead.integrations.sqlalchemy.attribute import (
    EncryptedAttribute,
    EncryptedProperty,
    HashProperty,
    PlaintextProperty,
    box_again,
)
from keystead.integrations.sqlalchemy.foreign import require_importable
from keystead.integrations.sqlalchemy.guard import watch
from keystead.integrations.sqlalchemy.held import kind_of
from keystead.integrations.sqlalchemy.misuse import watch_uses
from keystead.integrations.sqlalchemy.place import INFO, Place, places_of
from keystead.integrations.sqlalchemy.tokens import token_table
from keystead.integrations.sqlalchemy.type import Declaration, EncryptedBytes
from keystead.integrations.sqlalchemy.window import look_again, open_window, refuse_assignment

_MOVES: Final = {"onupdate": ("CASCADE", "SET NULL", "SET DEFAULT"), "ondelete": ("SET NULL", "SET DEFAULT")}
"""What a foreign key may do to its own column when the other table's row is changed or deleted."""


def prepare(class_: type[Any]) -> None:
    """Let a class that is being declared encrypt once it is mapped, and no engine write past that."""
    watch()
    watch_uses()
    for name, action in _ACTIONS.items():
        if not event.contains(class_, name, action):
            event.listen(class_, name, action, raw=name in _OF_STATES, propagate=name != "after_mapper_constructed")


def _constructed(mapper: Mapper[Any], class_: type[Any]) -> None:
    """Make fields of the declarations in a class's own table, and add the columns they need."""
    table = mapper.local_table
    for column in [each for each in table.c if isinstance(each, Column)]:
        sqltype = column.type
        if not isinstance(sqltype, EncryptedBytes) or sqltype.declaration is None or sqltype.place is not None:
            continue
        if not isinstance(table, Table):
            raise ConfigurationError(f"encrypted column {column.name} has to be in a table, and {table} is none")
        _place(mapper, table, column, sqltype, sqltype.declaration)


def _place(
    mapper: Mapper[Any], table: Table, column: Column[Any], sqltype: EncryptedBytes, declared: Declaration
) -> None:
    record = declared.record or _primary_key(mapper, table) or (ROW_KEY,)
    if record == (ROW_KEY,):
        _add_row_key(mapper, table)
    columns = {each.name: each for each in table.c}
    owners = (*record, *filter(None, (declared.tenant, declared.subject)))
    for name in owners:
        if name not in columns:
            raise ConfigurationError(
                f"encrypted column {column} names column {name!r}, which table {table.fullname} has not"
            )
    kinds = tuple(kind_of(column, columns[name]) for name in record)
    tenant_kind = None if declared.tenant is None else kind_of(column, columns[declared.tenant])
    subject_kind = None if declared.subject is None else kind_of(column, columns[declared.subject])
    *uuids, tenants, subjects = (kind if kind is UUID else None for kind in (*kinds, tenant_kind, subject_kind))
    field = declared.field(table.fullname, column.name, record, tuple(uuids), (tenants, subjects))
    for name in owners:
        _require_still(field, columns[name])
    tokens = None
    if field.token_index is not None:
        if len(record) != 1:
            raise ConfigurationError(
                f"field {field.id} has a token index and several record columns; declare record= as one unique column"
            )
        tokens = token_table(field, table, columns[record[0]])
    for index in field.indexes:
        for parity in () if index.many else (0, 1):
            name = index.column(column.name, parity)
            if name not in table.c:
                own = Column(name, LargeBinary(index.stored_size), nullable=True, index=True, unique=index.unique)
                table.append_column(own)
                if mapper.persist_selectable is not table:
                    # A join of parent and child: add_property refreshes it for plain columns, not for properties.
                    mapper.persist_selectable._refresh_for_new_column(own)
                mapper.add_property(name, HashProperty(own, deferred=True))
    window, importer = None, declared.importer
    if declared.plaintext is not None:
        window, importer = open_window(table, column, field, declared.plaintext, importer), None
    if importer is not None:
        require_importable(field, importer, in_place=True)
    sqltype.field = field
    sqltype.place = Place(
        field,
        table,
        column,
        sqltype.is_boxed,
        kinds,
        tenant_kind,
        subject_kind,
        tokens,
        window,
        importer,
        mapper.single,
    )


def _require_still(field: Field, column: Column[Any]) -> None:
    """Refuse a record or tenant column that an UPDATE changes by itself, under the ciphertexts bound to it.

    Raises:
        ConfigurationError: its foreign key says so, or what it is declared with.
    """
    if column.onupdate is not None or column.server_onupdate is not None:
        raise ConfigurationError(
            f"field {field.id} is bound to {column}, whose onupdate changes that under the ciphertexts, which then do "
            "not open; leave the option out, or name a column that stays by record= or tenant="
        )
    for key in column.foreign_keys:
        for option, action in (("onupdate", key.onupdate), ("ondelete", key.ondelete)):
            if (action or "").upper().startswith(_MOVES[option]):
                raise ConfigurationError(
                    f"field {field.id} is bound to {column}, and {option}={action!r} of its foreign key lets the "
                    "database change that under the ciphertexts, which then do not open; leave the option out and "
                    "change such rows in a session, or name a column that stays by record= or tenant="
                )


def _primary_key(mapper: Mapper[Any], table: Table) -> tuple[str, ...]:
    """Return the names of the primary key's columns if all are known before the insert, else nothing."""
    columns = tuple(table.primary_key)
    return tuple(c.name for c in columns) if all(_is_known(mapper, table, c) for c in columns) else ()


def _is_known(mapper: Mapper[Any], table: Table, column: Column[Any]) -> bool:
    default: Any = column.default
    if default is not None:
        if isinstance(default, Sequence):
            return not default.optional
        return not default.is_clause_element
    if column.server_default is not None or column.identity is not None or table.autoincrement_column is column:
        return False
    if mapper.inherits is not None:
        # A key that the parent's table draws is known no earlier than the parent's row.
        for parent in mapper.inherits.iterate_to_root():
            above = parent.local_table
            if above is not table and isinstance(above, Table):
                for key in column.foreign_keys:
                    if key.references(above):
                        return _is_known(parent, above, key.column)
    return True


def _add_row_key(mapper: Mapper[Any], table: Table) -> None:
    """Give a table its row key, unless it has one."""
    if ROW_KEY not in {column.name for column in table.c}:
        own = Column(ROW_KEY, Uuid, nullable=False, index=True, unique=True, default=new_row_key)
        is_taken = mapper.inherits is not None and mapper.has_property(ROW_KEY)
        own.key = f"{ROW_KEY}_{table.name}" if is_taken else ROW_KEY
        table.append_column(own)
        mapper.add_property(own.key, own)


def _configured(mapper: Mapper[Any], class_: type[Any]) -> None:
    """Give the attributes of a configured class, inherited ones too, their manners."""
    places = []
    for column in mapper.columns:
        place = getattr(column.type, "place", None)
        if isinstance(place, Place) and place.column is column:
            place.configure(mapper)
            mapper.class_manager[place.key].__class__ = EncryptedAttribute
            mapper.attrs[place.key].__class__ = EncryptedProperty
            if place.window is not None:
                mapper.attrs[place.window.key].__class__ = PlaintextProperty
                event.listen(mapper.class_manager[place.window.key], "set", refuse_assignment, raw=True)
            for key in filter(None, (*place.record_keys, place.tenant_key)):
                # As the ORM does for primary keys: what a row was before is needed to read what is bound to that.
                mapper.class_manager[key].impl.active_history = True
            places.append(place)
    mapper.class_manager.info[INFO] = tuple(places)
    if places:
        event.listen(class_, "refresh", _refreshed, raw=True)
    keys = {place.key for place in places}
    for composite in mapper.composites:
        if members := keys & {each.key for each in composite.props}:
            raise ConfigurationError(
                f"composite {composite} has encrypted members, {', '.join(sorted(members))}, and composites read past "
                "their attributes: make it a property that is put together from the attributes"
            )


def _refreshed(state: InstanceState[Any], context: object, attributes: Iterable[str] | None) -> None:
    for place in places_of(state.mapper):
        box_again(place, state, attributes)
        look_again(place, state, attributes)


_ACTIONS: Final[dict[str, Any]] = {
    "after_mapper_constructed": _constructed,
    "mapper_configured": _configured,
    "before_insert": flush.seal_new,
    "before_update": flush.seal_changed,
    "after_insert": flush.follow_insert,
    "after_update": flush.follow_update,
    "before_delete": flush.load_records,
    "after_delete": flush.delete_tokens,
}
_OF_STATES: Final = frozenset(_ACTIONS) - {"after_mapper_constructed", "mapper_configured"}
