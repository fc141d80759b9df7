"""Columns that name a record or a tenant: which can."""

from __future__ import annotations

from datetime import date
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
