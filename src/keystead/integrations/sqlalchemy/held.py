"""Columns that name a record or a tenant: which can, and what the database holds of the values they are given.

A ciphertext is bound to what its row's columns hold. A value that the database would hold in another form, such as the
text "007" in a column of integers, would bind it to a row that is not there.
"""

from __future__ import annotations

import re
from datetime import date, datetime
from typing import Any, Final
from uuid import UUID

from sqlalchemy import CHAR, NCHAR, Column, Date, Enum, Integer, LargeBinary, String, TypeDecorator, Uuid
from sqlalchemy.engine.default import DefaultDialect
from sqlalchemy.types import NullType, TypeEngine

from keystead.errors import ConfigurationError, InvalidInputError
from keystead.fields.field import record_text

_KINDS: Final[dict[type[TypeEngine[Any]], type]] = {
    Uuid: UUID,
    Integer: int,
    String: str,
    LargeBinary: bytes,
    Date: date,
}
_TAKEN: Final[dict[type, Any]] = {
    int: int,
    str: (str, int, UUID),
    bytes: (bytes, bytearray, memoryview),
    date: date,
}
"""What each kind of column takes so that it holds the same text: psycopg and SQLite turn the others into it."""
_INTEGER: Final = re.compile(r"0|-?[1-9][0-9]*")
_PROCESSING: Final = ("process_bind_param", "process_result_value", "bind_processor", "result_processor")


def kind_of(encrypted: Column[Any], column: Column[Any]) -> type:
    """Return the class of what a column holds that an encrypted one is bound to: UUID, int, str, bytes or date.

    Raises:
        ConfigurationError: a type that holds something else than it is given, or nobody knows what.
    """
    plain = _plain(column.type)
    trouble = (
        "holds something that a Python value does not tell; use a column of UUIDs, integers, texts, bytes or dates"
    )
    if isinstance(plain, NullType):
        trouble = "has no type when its class is mapped; declare the type beside its foreign key"
    elif isinstance(plain, CHAR | NCHAR):
        trouble = "is padded with spaces by some databases; use String"
    elif isinstance(plain, Enum) and not _holds_values(plain):
        trouble = (
            "holds the names of an enumeration's members and not their values; use an enumeration of str with "
            "Enum(..., values_callable=lambda members: [each.value for each in members])"
        )
    else:
        for sqltype, kind in _KINDS.items():
            if isinstance(plain, sqltype):
                return kind
    raise ConfigurationError(
        f"encrypted column {encrypted} is bound to {column}, which {trouble}; or name another by record= or tenant=. "
        "record='keystead_row' adds one for the record, of random UUIDs"
    )


def as_held(kind: type, value: Any) -> Any:
    """Return what a column of a kind holds of ``value``; None stays None.

    Raises:
        InvalidInputError: the column would hold something else, or that depends on the database.
    """
    if value is None or value.__class__ is kind:
        return value
    if kind is UUID:
        if isinstance(value, str):
            try:
                return UUID(value)
            except ValueError:
                pass
    elif kind is int and isinstance(value, str):
        # Frameworks hand over the digits of a path. What is written otherwise, "007", the database holds as 7.
        if _INTEGER.fullmatch(value):
            return int(value)
    elif isinstance(value, _TAKEN[kind]) and not isinstance(value, bool | datetime):
        return value
    raise InvalidInputError(
        f"a record or tenant in a column of {kind.__name__} values is named by one, as the column holds it, not by "
        f"this {type(value).__name__}"
    )


def _plain(sqltype: TypeEngine[Any]) -> TypeEngine[Any]:
    """Return the type that a decorator only wraps; one that changes values stays."""
    while isinstance(sqltype, TypeDecorator) and all(
        getattr(type(sqltype), name) is getattr(TypeDecorator, name) for name in _PROCESSING
    ):
        sqltype = sqltype.impl_instance
    return sqltype


def _holds_values(sqltype: Enum) -> bool:
    """Return whether a column of an enumeration holds the text that its members name a record by."""
    if sqltype.enum_class is None:
        return True
    held = sqltype.bind_processor(DefaultDialect())  # type: ignore[no-untyped-call]
    try:
        return held is not None and all(
            record_text(each) == held(each) for each in sqltype.enum_class.__members__.values()
        )
    except (InvalidInputError, LookupError):
        return False
