"""Sealing what a flush is about to write, in the events of the mapper.

In an object's ``__dict__`` stands a plain value that was assigned, or a box that was loaded. Here a plain value becomes
a box bound to its record, and the index columns beside it are filled.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import ClauseElement, Column, select
from sqlalchemy.engine import Connection
from sqlalchemy.orm import InstanceState, Mapper
from sqlalchemy.orm.attributes import flag_modified
from sqlalchemy.orm.base import LoaderCallableStatus
from sqlalchemy.sql.schema import Sequence

from keystead.crypto.codec import encode_value
from keystead.errors import ConfigurationError, ConflictError, InvalidInputError, KMSError
from keystead.fields import Encrypted
from keystead.integrations.sqlalchemy.binding import as_itself, binding_of
from keystead.integrations.sqlalchemy.commit import note_indexes
from keystead.integrations.sqlalchemy.emptied import begin_emptying, end_emptying
from keystead.integrations.sqlalchemy.place import Place, column_named, places_of
from keystead.integrations.sqlalchemy.tokens import write_tokens
from keystead.integrations.sqlalchemy.whose import Whose, bound_to, forget_sealed, note_sealed, whose_is
from keystead.integrations.sqlalchemy.window import clear_value, require_unique


def seal_new(mapper: Mapper[Any], connection: Connection, state: InstanceState[Any]) -> None:
    """Seal the encrypted values of an object that is about to be inserted."""
    for place in places_of(mapper):
        for name in place.field.owner_columns:
            _draw(mapper, connection, state, column_named(place.table, name))
        if place.key not in state.dict and place.column.default is not None:
            _draw(mapper, connection, state, place.column)
        value = _held(place, state)
        if isinstance(value, Encrypted):
            value = _content(place, state, connection, value)
        _seal(place, state, connection, value)


def seal_changed(mapper: Mapper[Any], connection: Connection, state: InstanceState[Any]) -> None:
    """Seal what changed in an object that is about to be updated, and what has to follow its row to another record."""
    for place in places_of(mapper):
        is_changed = place.key in state.committed_state
        has_moved = _whose(place, state, committed=True) != _whose(place, state, committed=False)
        if not is_changed and not has_moved:
            continue
        if place.key not in state.dict:
            state.manager[place.key].impl.get(state, state.dict)
        value, before = _held(place, state), state.committed_state.get(place.key)
        if isinstance(value, Encrypted):
            value = _content(place, state, connection, value)
        elif not has_moved and isinstance(before, Encrypted) and _is_same(place, state, before, value):
            state.dict[place.key] = before
            del state.committed_state[place.key]
            continue
        _seal(place, state, connection, value)


def follow_insert(mapper: Mapper[Any], connection: Connection, state: InstanceState[Any]) -> None:
    """Write the words of an object that was inserted, and see that it is unique."""
    for place in places_of(mapper):
        forget_sealed(connection, state.dict.get(place.key))
        if place.tokens is not None and place.key in state.dict:
            _write_tokens(place, connection, state)
            end_emptying(connection, place.field)
        require_unique(place, connection, state)


def follow_update(mapper: Mapper[Any], connection: Connection, state: InstanceState[Any]) -> None:
    """Replace the words of an object that was updated, and see that it is unique."""
    for place in places_of(mapper):
        whose = forget_sealed(connection, state.dict.get(place.key))
        if whose is not None:
            _require_own(place, mapper, connection, state, whose)
        if place.tokens is not None and place.key in state.committed_state:
            former = place.record_held(state, committed=True)
            if former != place.record_held(state, committed=False):
                write_tokens(connection, place.tokens, former, [])
            _write_tokens(place, connection, state)
            end_emptying(connection, place.field)
        if place.key in state.committed_state:
            require_unique(place, connection, state)


def load_records(mapper: Mapper[Any], connection: Connection, state: InstanceState[Any]) -> None:
    """Load what the words of an object that is about to be deleted name it by."""
    for place in places_of(mapper):
        if place.tokens is not None:
            place.record_held(state, committed=True)


def delete_tokens(mapper: Mapper[Any], connection: Connection, state: InstanceState[Any]) -> None:
    """Delete the words of an object that was deleted, where no foreign key does it.

    After its row, as an update does: two that lock a row and its words in another order would wait for each other.
    """
    for place in places_of(mapper):
        if place.tokens is not None:
            write_tokens(connection, place.tokens, place.record_held(state, committed=True), [])


def drawn(column: Column[Any], connection: Connection | None = None) -> Any:
    """Return a value of a column's default, or None if it has none that can be known before the insert."""
    default: Any = column.default
    if default is None or default.is_clause_element:
        return None
    if isinstance(default, Sequence):
        if connection is None or not connection.dialect.supports_sequences:
            raise ConfigurationError(
                f"column {column} is drawn from a sequence, which this database or this call cannot do before the "
                "insert; assign it, or declare the encrypted columns with a record= that is known"
            )
        return connection.scalar(default)
    return default.arg(None) if default.is_callable else default.arg


def _held(place: Place, state: InstanceState[Any]) -> object:
    """Return what an object holds: a box, or what was assigned, or what is in clear."""
    value = state.dict.get(place.key)
    return clear_value(place, state) if value is None else value


def _draw(mapper: Mapper[Any], connection: Connection, state: InstanceState[Any], column: Column[Any]) -> None:
    """Give an attribute the value that its column's default would give it in the insert."""
    prop = mapper.get_property_by_column(column)
    if state.dict.get(prop.key) is not None:
        return
    for each in prop.columns:
        value = drawn(each, connection)
        if value is not None:
            state.manager[prop.key].impl.set(state, state.dict, value, None)
            return


def _seal(place: Place, state: InstanceState[Any], connection: Connection, value: object) -> None:
    if isinstance(value, ClauseElement) or hasattr(value, "__clause_element__"):
        raise InvalidInputError(f"field {place.field.id} is encrypted: it takes a value, not an SQL expression")
    binding = binding_of(connection.dialect)
    cipher = binding.cipher(place.field)
    box: Encrypted[Any] | None = None
    indexes: dict[str, bytes | None] = dict.fromkeys(place.field.index_columns)
    if value is not None or place.field.encrypt_null:
        if place.field.indexes:
            note_indexes(connection, cipher)
        record, tenant = place.owner(state, committed=False)
        subject = place.subject(state, committed=False)
        ciphertext = binding.in_flush(
            lambda: cipher.encrypt(value, record=record, tenant=tenant, subject=subject),
            cipher,
            tenant,
            subject=record if subject is None else subject,
        )
        if ciphertext is not None:
            box = Encrypted(ciphertext, cipher, record=record, tenant=tenant)
            note_sealed(connection, box, whose_is(record, tenant))
        if place.field.indexes and value is not None:
            indexes = binding.in_flush(lambda: cipher.index_values(value, tenant=tenant), cipher, tenant)
    if box is None and place.tokens is not None:
        begin_emptying(connection, place.field)
    if place.window is not None:
        # Both in each statement, whatever was loaded: a row has one of them at most.
        for key in (place.key, place.window.key):
            state.committed_state[key] = LoaderCallableStatus.NO_VALUE
        _put(state, place.window.key, None)
    _put(state, place.key, box)
    for name, digest in indexes.items():
        _put(state, place.index_keys[name], digest)


def _whose(place: Place, state: InstanceState[Any], *, committed: bool) -> object:
    """Return what a ciphertext has to follow, where it changes."""
    return place.owner(state, committed=committed), place.subject(state, committed=committed)


def _put(state: InstanceState[Any], key: str, value: object) -> None:
    """Set an attribute past its validators, which have seen the plain value, so that the flush writes it.

    It does so for a new object too: an object that takes the place of a deleted one is an UPDATE of what was flagged.
    """
    state.dict[key] = value
    if key not in state.committed_state:
        flag_modified(state.obj(), key)


def _content(place: Place, state: InstanceState[Any], connection: Connection, box: Encrypted[Any]) -> object:
    """Return the value of a box that stands in an object: its own, or one that ``merge`` copied."""
    binding = binding_of(connection.dialect)
    if not box.is_bound:
        box = box.bound(*place.owner(state, committed=True))
    return binding.in_flush(box.decrypt, box.cipher, box.tenant, box.ciphertext)


def _is_same(place: Place, state: InstanceState[Any], before: Encrypted[Any], value: object) -> bool:
    """Return whether the value that was assigned is the one that was there; one that cannot be read is another."""
    if not before.is_bound:
        before = before.bound(*place.owner(state, committed=True))
    try:
        # By their encodings: equal values may be told apart in them, such as 1 and True inside of JSON.
        return encode_value(before.decrypt()) == encode_value(value)
    except KMSError:
        return False


def _require_own(
    place: Place, mapper: Mapper[Any], connection: Connection, state: InstanceState[Any], whose: Whose
) -> None:
    """See that the row is still the one that its object was when it was loaded, now that the update has locked it.

    Raises:
        ConflictError: another session gave the row another record or tenant, under which the value does not open.
    """
    keys = [*place.table.primary_key]
    bound = [column_named(place.table, name) for name in bound_to(place.field)]
    if not keys or not {*bound} - {*keys}:
        return
    where = [each == _value_of(mapper, state, each) for each in keys]
    row = connection.execute(select(*bound).where(*where)).first()
    if row is None:
        return
    count = len(place.field.record_columns)
    tenant = None if place.field.tenant is None else place.read_tenant(row[count])
    if whose_is(place.read_record(row[:count]), tenant) != whose:
        raise as_itself(
            ConflictError(
                f"a row of field {place.field.id} has another record or tenant by now than the object that was saved; "
                "load it again, and do the change again"
            )
        )


def _value_of(mapper: Mapper[Any], state: InstanceState[Any], column: Column[Any]) -> Any:
    return state.manager[mapper.get_property_by_column(column).key].impl.get(state, state.dict)


def _write_tokens(place: Place, connection: Connection, state: InstanceState[Any]) -> None:
    index = place.field.token_index
    box = state.dict.get(place.key)
    if index is None or place.tokens is None or isinstance(box, LoaderCallableStatus):
        return
    tokens: list[bytes] = []
    if isinstance(box, Encrypted):
        tokens = box.cipher.token_values(index, box.decrypt(), tenant=box.tenant)
    write_tokens(connection, place.tokens, place.record_held(state, committed=False), tokens)
