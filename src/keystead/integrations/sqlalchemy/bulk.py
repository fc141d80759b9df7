"""Rows for bulk statements, sealed beforehand."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from sqlalchemy import Engine, Insert, Table, insert, inspect
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.orm import Mapper

from keystead.errors import InvalidInputError
from keystead.integrations.sqlalchemy.binding import Binding, binding_of
from keystead.integrations.sqlalchemy.flush import drawn
from keystead.integrations.sqlalchemy.place import Place, places_of
from keystead.integrations.sqlalchemy.whose import SealedCiphertext, whose_is

_Rows = list[dict[str, Any]]


def sealed_rows(engine: Engine | AsyncEngine, model: type[Any], rows: Iterable[Mapping[str, Any]]) -> _Rows:
    """Return rows for ``session.execute(insert(model), rows)``: encrypted, with index columns and drawn keys.

    An UPDATE refuses them, since the drawn keys and defaults are those of a new row: ``sealed_updates`` is for that.
    Does no I/O itself: with an async key manager, keyrings per tenant or subject are loaded beforehand, by
    ``km.load_fields``.

    Args:
        engine: one that has been bound.
        model: a mapped class.
        rows: plain values by the names of attributes.

    Raises:
        InvalidInputError: a row without its record, a value of another type, or a model with a token index, whose words
            are other rows: ``sealed_inserts`` has those too.
        KMSError: as ``FieldCipher.encrypt_many``.
    """
    mapper, binding = _bound(engine, model)
    for place in places_of(mapper):
        if place.tokens is not None:
            raise InvalidInputError(
                f"field {place.field.id} has a token index, whose words are rows of another table: insert both with "
                "sealed_inserts(engine, Model, rows), or add and change the objects through a session"
            )
    sealed = [dict(row) for row in rows]
    for place in places_of(mapper):
        _seal(mapper, binding, place, sealed)
    return sealed


def sealed_updates(engine: Engine | AsyncEngine, model: type[Any], rows: Iterable[Mapping[str, Any]]) -> _Rows:
    """Return rows for ``session.execute(update(model), rows)``: what they give encrypted, with its index columns.

    Nothing is drawn and no other column is touched. Each row has its primary key, as for any such update, and the
    record and the tenant of the values it gives. A row key or a tenant that is given is written with them, so that
    other encrypted columns bound to it have to be given too.

    Args:
        engine: one that has been bound.
        model: a mapped class.
        rows: plain values by the names of attributes.

    Raises:
        InvalidInputError: a row without the record or the tenant of a value, a value of another type, or one that has a
            token index, whose words are other rows.
        KMSError: as ``FieldCipher.encrypt_many``.
    """
    mapper, binding = _bound(engine, model)
    sealed = [dict(row) for row in rows]
    for place in places_of(mapper):
        if place.tokens is not None and any(place.key in row for row in sealed):
            raise InvalidInputError(
                f"field {place.field.id} has a token index, whose words are rows of another table: change the objects "
                "through a session"
            )
        _seal(mapper, binding, place, sealed, is_update=True)
    return sealed


def sealed_inserts(
    engine: Engine | AsyncEngine, model: type[Any], rows: Iterable[Mapping[str, Any]]
) -> list[tuple[Insert, _Rows]]:
    """Return every statement, with its rows, that inserts objects of a model: theirs, and those of their words.

    They belong into one transaction, in this order::

        for statement, sealed in sealed_inserts(engine, Person, rows):
            session.execute(statement, sealed)

    For models without a token index it is one statement, with what ``sealed_rows`` returns. None has no rows. Arguments
    and errors as there.
    """
    mapper, binding = _bound(engine, model)
    sealed = [dict(row) for row in rows]
    words: dict[Table, _Rows] = {}
    for place in places_of(mapper):
        found = _seal(mapper, binding, place, sealed)
        if place.tokens is not None:
            words[place.tokens] = found
    statements = [(insert(model), sealed), *((insert(table), found) for table, found in words.items())]
    return [(statement, each) for statement, each in statements if each]


def _bound(engine: Engine | AsyncEngine, model: type[Any]) -> tuple[Mapper[Any], Binding]:
    mapper: Mapper[Any] = inspect(model)
    binding = binding_of((engine.sync_engine if isinstance(engine, AsyncEngine) else engine).dialect)
    mapper.registry.configure()
    return mapper, binding


def _seal(mapper: Mapper[Any], binding: Binding, place: Place, rows: _Rows, *, is_update: bool = False) -> _Rows:
    """Seal one column of rows, in place, and return the rows of their words."""
    is_filled = not is_update and (place.column.default is not None or place.field.encrypt_null)
    concerned = [row for row in rows if is_filled or place.key in row]
    if is_update:
        if not concerned:
            return []
        _require_owners(place, concerned)
    if place.window is not None and any(index.unique for index in place.field.indexes):
        raise InvalidInputError(
            f"field {place.field.id} is unique, and only a session looks at the rows that still have values in "
            f"clear; add its objects through a session, or end the window first: {place.window.job}"
        )
    cipher = binding.cipher(place.field)
    # Before anything is hashed: what becomes live meanwhile is then missed at the commit, and not in the table.
    versions = frozenset(cipher.index_versions)
    words: _Rows = []
    by_owner: dict[tuple[str | None, object], list[tuple[dict[str, Any], object]]] = {}
    for row in concerned:
        owner = _tenant(mapper, place, row), _subject(mapper, place, row)
        by_owner.setdefault(owner, []).append((row, _record(mapper, place, row)))
    for (tenant, subject), members in by_owner.items():
        plain = [(row[place.key] if is_update else _drawn(mapper, place.key, row), record) for row, record in members]
        for (row, record), (value, _), ciphertext in zip(
            members, plain, cipher.encrypt_many(plain, tenant=tenant, subject=subject), strict=True
        ):
            row[place.key] = (
                None
                if ciphertext is None
                else SealedCiphertext(ciphertext, whose_is(record, tenant), versions, is_update=is_update)
            )
            if place.window is not None:
                row[place.window.key] = None
            if place.field.indexes:
                for name, digest in cipher.index_values(value, tenant=tenant).items():
                    row[place.index_keys[name]] = digest
            if place.field.token_index is not None:
                hashes = cipher.token_values(place.field.token_index, value, tenant=tenant)
                words += [{"token": each, "record": row[place.record_keys[0]]} for each in hashes]
    return words


def _require_owners(place: Place, rows: _Rows) -> None:
    """Refuse rows of an UPDATE that do not say whose they are."""
    for row in rows:
        for key in (*place.record_keys, *filter(None, (place.tenant_key, place.subject_key))):
            if row.get(key) is None:
                raise InvalidInputError(f"field {place.field.id}: a row that gives it a value leaves out its {key}")


def _record(mapper: Mapper[Any], place: Place, row: dict[str, Any]) -> object:
    return place.read_record([_drawn(mapper, key, row) for key in place.record_keys])


def _tenant(mapper: Mapper[Any], place: Place, row: dict[str, Any]) -> str | None:
    return None if place.tenant_key is None else place.read_tenant(_drawn(mapper, place.tenant_key, row))


def _subject(mapper: Mapper[Any], place: Place, row: dict[str, Any]) -> object:
    return None if place.subject_key is None else place.read_subject(_drawn(mapper, place.subject_key, row))


def _drawn(mapper: Mapper[Any], key: str, row: dict[str, Any]) -> Any:
    """Return a row's value, drawn from the column's default where there is none."""
    if row.get(key) is None:
        for column in mapper.attrs[key].columns:
            value = drawn(column)
            if value is not None:
                row[key] = value
                break
    return row.get(key)
