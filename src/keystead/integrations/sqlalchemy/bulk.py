"""Rows for bulk statements, sealed beforehand."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from sqlalchemy import Engine, inspect
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.orm import Mapper

from keystead.errors import InvalidInputError
from keystead.integrations.sqlalchemy.binding import binding_of
from keystead.integrations.sqlalchemy.flush import drawn
from keystead.integrations.sqlalchemy.place import Place, places_of


def sealed_rows(
    engine: Engine | AsyncEngine, model: type[Any], rows: Iterable[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """Return rows for ``session.execute(insert(model), rows)``: encrypted, with index columns and drawn keys.

    Does no I/O itself: with an async key manager, keyrings per tenant are loaded beforehand, by ``km.load_fields``.

    Args:
        engine: one that has been bound.
        model: a mapped class.
        rows: plain values by the names of attributes.

    Raises:
        InvalidInputError: a row without its record, a value of another type, or a model with a token index, whose words
            are other rows: add its objects through a session.
        KMSError: as ``FieldCipher.encrypt_many``.
    """
    mapper: Mapper[Any] = inspect(model)
    binding = binding_of((engine.sync_engine if isinstance(engine, AsyncEngine) else engine).dialect)
    mapper.registry.configure()
    sealed = [dict(row) for row in rows]
    for place in places_of(mapper):
        if place.tokens is not None:
            raise InvalidInputError(
                f"field {place.field.id} has a token index, whose words are rows of another table; add its objects "
                "through a session"
            )
        if place.window is not None and any(index.unique for index in place.field.indexes):
            raise InvalidInputError(
                f"field {place.field.id} is unique, and only a session looks at the rows that still have values in "
                f"clear; add its objects through a session, or end the window first: {place.window.job}"
            )
        cipher = binding.cipher(place.field)
        by_tenant: dict[str | None, list[tuple[dict[str, Any], object]]] = {}
        for row in sealed:
            if place.key in row or place.column.default is not None or place.field.encrypt_null:
                by_tenant.setdefault(_tenant(mapper, place, row), []).append((row, _record(mapper, place, row)))
        for tenant, members in by_tenant.items():
            plain = [(_drawn(mapper, place.key, row), record) for row, record in members]
            for (row, _), (value, _), ciphertext in zip(
                members, plain, cipher.encrypt_many(plain, tenant=tenant), strict=True
            ):
                row[place.key] = ciphertext
                if place.window is not None:
                    row[place.window.key] = None
                if place.field.indexes:
                    for name, digest in cipher.index_values(value, tenant=tenant).items():
                        row[place.index_keys[name]] = digest
    return sealed


def _record(mapper: Mapper[Any], place: Place, row: dict[str, Any]) -> object:
    return place.field.read_record(tuple(_drawn(mapper, key, row) for key in place.record_keys))


def _tenant(mapper: Mapper[Any], place: Place, row: dict[str, Any]) -> str | None:
    return None if place.tenant_key is None else place.field.read_tenant(_drawn(mapper, place.tenant_key, row))


def _drawn(mapper: Mapper[Any], key: str, row: dict[str, Any]) -> Any:
    """Return a row's value, drawn from the column's default where there is none."""
    if row.get(key) is None:
        for column in mapper.attrs[key].columns:
            value = drawn(column)
            if value is not None:
                row[key] = value
                break
    return row.get(key)
