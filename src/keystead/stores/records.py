"""Rows as records. SQLite keeps a value of any type in any column: what cannot be a record's is told, by its place."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields
from enum import Enum
from functools import cache
from types import NoneType, UnionType
from typing import Any, Final, TypeVar, Union, get_args, get_origin, get_type_hints

from sqlalchemy import RowMapping, Table

from keystead.errors import StorageOperationError

T = TypeVar("T")
_MAX_TOLD: Final = 80


def as_record(kind: Callable[..., T], table: Table, row: RowMapping | Mapping[str, Any]) -> T:
    """Return a row as a dataclass that has its columns as fields; text becomes the field's enum.

    Raises:
        StorageOperationError: a column holds what the field cannot be.
    """
    values: dict[str, Any] = {**row}
    for name, (types, enum) in _readers(kind).items():
        if name not in values:
            continue
        value = values[name]
        try:
            if enum is not None:
                values[name] = enum(value)
            elif type(value) not in types:
                raise ValueError
        except ValueError:
            raise damaged(table, row, name) from None
    return kind(**values)


@cache
def _readers(kind: Any) -> dict[str, tuple[frozenset[type], type[Enum] | None]]:
    """Return the types that each field may have, or its enum."""
    hints = get_type_hints(kind, localns={})
    found: dict[str, tuple[frozenset[type], type[Enum] | None]] = {}
    for each in fields(kind):
        hint = hints[each.name]
        is_enum = isinstance(hint, type) and issubclass(hint, Enum)
        found[each.name] = (frozenset(), hint) if is_enum else (frozenset(_types(hint)), None)
    return found


def _types(hint: Any) -> list[type]:
    origin = get_origin(hint)
    if origin in (Union, UnionType):
        return [one for each in get_args(hint) for one in _types(each)]
    if origin is not None and issubclass(origin, Mapping):
        return [dict]
    return [NoneType if hint is None else origin or hint]


def damaged(table: Table, row: RowMapping | Mapping[str, Any], column: str) -> StorageOperationError:
    """Return the error for a column that holds what its record cannot have."""
    key = next(iter(table.primary_key.columns)).name
    place = f"{key} {repr(row[key])[:_MAX_TOLD]}" if key in row else "one row"
    return StorageOperationError(
        f"the store's table {table.name} is damaged: {column} of {place} holds what no release writes; stop writing to "
        "the store and restore a backup or import an export"
    )


__all__ = ["as_record", "damaged"]
