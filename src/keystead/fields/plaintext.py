"""Values of a plaintext column, as drivers give them, in the types of a field."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime
from decimal import Decimal, InvalidOperation
from typing import Final
from uuid import UUID

from keystead.crypto.codec import ValueType
from keystead.errors import InvalidInputError


def from_column(value: object, kind: ValueType) -> object:
    """Return a column's value as one of the type ``kind``; what is of it already stays, JSON always.

    SQLite has no dates, decimals, UUIDs and truth values of its own: their text and numbers are read as what they
    stand for. A time without a zone is taken as UTC.

    Raises:
        InvalidInputError: it stands for no such value.
    """
    read = _READERS.get(kind)
    if read is None:
        return value
    try:
        return read(value)
    except (ValueError, TypeError, InvalidOperation, OverflowError):
        raise InvalidInputError(f"the plaintext is no {kind.name.lower()}") from None


def from_json(text: object) -> object:
    """Return the value of a JSON column, given as the text of it; a number stays, which SQLite makes of its text.

    As text, because a driver may have read it already, and then a text in JSON looks like JSON itself.

    Raises:
        InvalidInputError: it is no JSON.
    """
    if not isinstance(text, str):
        return text
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise InvalidInputError("the plaintext is no json") from None


def _bytes(value: object) -> object:
    return bytes(value) if isinstance(value, memoryview | bytearray) else value


def _decimal(value: object) -> object:
    return Decimal(str(value)) if isinstance(value, str | int | float) else value


def _datetime(value: object) -> object:
    moment = datetime.fromisoformat(value) if isinstance(value, str) else value
    return moment.replace(tzinfo=UTC) if isinstance(moment, datetime) and moment.tzinfo is None else moment


def _date(value: object) -> object:
    return date.fromisoformat(value) if isinstance(value, str) else value


def _uuid(value: object) -> object:
    return UUID(value) if isinstance(value, str) else value


def _bool(value: object) -> object:
    return bool(value) if value in (0, 1) else value


def _float(value: object) -> object:
    if not isinstance(value, int | Decimal):
        return value
    number = float(value)
    if Decimal(repr(number)) != value:
        raise ValueError("more digits than a float has")
    return number


_READERS: Final[Mapping[ValueType, Callable[[object], object]]] = {
    ValueType.BYTES: _bytes,
    ValueType.DECIMAL: _decimal,
    ValueType.DATETIME: _datetime,
    ValueType.DATE: _date,
    ValueType.UUID: _uuid,
    ValueType.BOOL: _bool,
    ValueType.FLOAT: _float,
}
