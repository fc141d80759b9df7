"""Typed field plaintext: one type byte, then the value in that type's only encoding.

Spec: docs/spec/field-codec-v1.md.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Callable
from datetime import UTC, date, datetime
from decimal import Decimal, InvalidOperation
from enum import IntEnum
from typing import Final, NoReturn
from uuid import UUID

from keystead.errors import DecryptionError, InvalidInputError


class ValueType(IntEnum):
    """The type byte in front of a field's plaintext."""

    BYTES = 0x00
    TEXT = 0x01
    JSON = 0x02
    INTEGER = 0x03
    DECIMAL = 0x04
    DATETIME = 0x05
    DATE = 0x06
    UUID = 0x07
    BOOL = 0x08
    FLOAT = 0x09
    NULL = 0x0A


def parse_value_type(name: str) -> ValueType:
    """Return the type called ``name``: a member's name in lower case (``text``, ``bytes``, ``json``...).

    Raises:
        InvalidInputError: no type of that name.
    """
    for member in ValueType:
        if member.name.lower() == name:
            return member
    names = ", ".join(member.name.lower() for member in ValueType)
    raise InvalidInputError(f"no such field type; use one of {names}")


def encode_value(value: object, type: ValueType | None = None) -> bytes:
    """Return the typed plaintext of ``value``; without ``type`` it is told from the value's class.

    dict, list and tuple become JSON (a tuple comes back as a list); str is text unless ``type`` says JSON; an aware
    datetime comes back in UTC. Nothing is converted to fit ``type``.

    Raises:
        InvalidInputError: a class that no type holds, a value that is not of ``type``, a naive datetime, a decimal
            that is not finite, or JSON with NaN, infinity, lone surrogates or keys that are not str.
    """
    kind = _infer(value) if type is None else type
    return bytes((kind,)) + _ENCODERS[kind](value)


def decode_value(data: bytes, expected: ValueType | None = None) -> object:
    """Return the value of a typed plaintext.

    Raises:
        DecryptionError: empty, of another type than ``expected``, of an unknown type, or not the encoding that
            ``encode_value`` gives.
    """
    if not data:
        raise DecryptionError("the decrypted field is empty, without even a type")
    if expected is not None and data[0] != expected:
        raise DecryptionError(f"the decrypted field is not of the type {expected.name.lower()}")
    try:
        # An IntEnum's member is found by its number, which is much faster than making it.
        return _DECODERS[data[0]](data[1:])
    except (KeyError, ValueError, InvalidOperation, RecursionError, struct.error):
        raise DecryptionError("the decrypted field is malformed") from None


def _infer(value: object) -> ValueType:
    for kind, classes in _CLASSES:
        if isinstance(value, classes):
            return kind
    raise InvalidInputError(
        f"a field cannot hold {type(value).__name__}; use bytes, str, dict, list, int, Decimal, datetime, date, "
        "UUID, bool, float or None"
    )


# Order matters: bool is an int, datetime is a date.
_CLASSES: Final[tuple[tuple[ValueType, tuple[type, ...]], ...]] = (
    (ValueType.NULL, (type(None),)),
    (ValueType.BYTES, (bytes, bytearray, memoryview)),
    (ValueType.TEXT, (str,)),
    (ValueType.BOOL, (bool,)),
    (ValueType.INTEGER, (int,)),
    (ValueType.FLOAT, (float,)),
    (ValueType.DECIMAL, (Decimal,)),
    (ValueType.DATETIME, (datetime,)),
    (ValueType.DATE, (date,)),
    (ValueType.UUID, (UUID,)),
    (ValueType.JSON, (dict, list, tuple)),
)


def _mismatch(kind: ValueType, value: object) -> NoReturn:
    raise InvalidInputError(f"a field of the type {kind.name.lower()} cannot hold {type(value).__name__}")


def _encode_bytes(value: object) -> bytes:
    if not isinstance(value, bytes | bytearray | memoryview):
        _mismatch(ValueType.BYTES, value)
    return bytes(value)


def _encode_text(value: object) -> bytes:
    if not isinstance(value, str):
        _mismatch(ValueType.TEXT, value)
    return _utf8(value)


def _utf8(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError:
        raise InvalidInputError("the text has a lone surrogate, which UTF-8 cannot encode") from None


def _encode_json(value: object) -> bytes:
    try:
        _check_json_keys(value)
        return _utf8(json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")))
    except InvalidInputError:
        raise
    except (TypeError, ValueError, RecursionError):
        raise InvalidInputError(
            "the value is not JSON: only dict, list, str, int, float, bool and None, without NaN, infinity or cycles"
        ) from None


def _check_json_keys(value: object) -> None:
    """Refuse keys that JSON would turn into text, so that what comes back equals what went in."""
    if isinstance(value, dict):
        for key, item in value.items():
            if not isinstance(key, str):
                raise InvalidInputError(f"a JSON key must be str, not {type(key).__name__}; pass str(key)")
            _check_json_keys(item)
    elif isinstance(value, list | tuple):
        for item in value:
            _check_json_keys(item)


def read_json(data: bytes) -> object:
    """Return the value of JSON in UTF-8, read as strictly as it is specified.

    Raises:
        ValueError: it is none, names a member twice, or has a number that JSON has not.
        RecursionError: it is nested too deeply.
    """
    return json.loads(
        data.decode(), parse_constant=_refuse_constant, parse_float=_finite_float, object_pairs_hook=_unique_keys
    )


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError("NaN and infinity are not JSON")


def _finite_float(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError("a number beyond the range of a double")
    return number


def _unique_keys(pairs: list[tuple[str, object]]) -> dict[str, object]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("a key stands twice")
    return members


def _require_same(data: bytes, encoded: bytes) -> None:
    if data != encoded:
        raise ValueError("not the form the encoder gives")


def _encode_integer(value: object) -> bytes:
    if isinstance(value, bool) or not isinstance(value, int):
        _mismatch(ValueType.INTEGER, value)
    return value.to_bytes(_integer_size(value), "big", signed=True)


def _integer_size(number: int) -> int:
    return (number if number >= 0 else ~number).bit_length() // 8 + 1


def _decode_integer(data: bytes) -> int:
    number = int.from_bytes(data, "big", signed=True)
    if len(data) != _integer_size(number):
        raise ValueError("not the shortest form")
    return number


def _encode_decimal(value: object) -> bytes:
    if not isinstance(value, Decimal):
        _mismatch(ValueType.DECIMAL, value)
    if not value.is_finite():
        raise InvalidInputError("a decimal field holds finite numbers; use a float for NaN and infinity")
    # str() writes "e" where the thread's decimal context has capitals=0.
    return str(value).upper().encode("ascii")


def _decode_decimal(data: bytes) -> Decimal:
    number = Decimal(data.decode("ascii"))
    _require_same(data, _encode_decimal(number))
    return number


def _encode_datetime(value: object) -> bytes:
    if not isinstance(value, datetime):
        _mismatch(ValueType.DATETIME, value)
    if value.utcoffset() is None:
        raise InvalidInputError("a naive datetime has no fixed meaning; give it a timezone, such as datetime.UTC")
    try:
        moment = value.astimezone(UTC)
    except OverflowError:
        raise InvalidInputError("the datetime is outside the years 1 to 9999 in UTC") from None
    return moment.replace(tzinfo=None).isoformat(timespec="microseconds").encode("ascii") + b"Z"


def _decode_datetime(data: bytes) -> datetime:
    moment = datetime.fromisoformat(data.decode("ascii")).replace(tzinfo=UTC)
    _require_same(data, _encode_datetime(moment))
    return moment


def _encode_date(value: object) -> bytes:
    if isinstance(value, datetime) or not isinstance(value, date):
        _mismatch(ValueType.DATE, value)
    return value.isoformat().encode("ascii")


def _decode_date(data: bytes) -> date:
    day = date.fromisoformat(data.decode("ascii"))
    _require_same(data, _encode_date(day))
    return day


def _encode_uuid(value: object) -> bytes:
    if not isinstance(value, UUID):
        _mismatch(ValueType.UUID, value)
    return value.bytes


def _decode_uuid(data: bytes) -> UUID:
    return UUID(bytes=data)


def _encode_bool(value: object) -> bytes:
    if not isinstance(value, bool):
        _mismatch(ValueType.BOOL, value)
    return b"\x01" if value else b"\x00"


def _decode_bool(data: bytes) -> bool:
    if data not in (b"\x00", b"\x01"):
        raise ValueError("neither 0 nor 1")
    return data == b"\x01"


def _encode_float(value: object) -> bytes:
    if not isinstance(value, float):
        _mismatch(ValueType.FLOAT, value)
    return struct.pack(">d", value)


def _decode_float(data: bytes) -> float:
    (number,) = struct.unpack(">d", data)
    return float(number)


def _encode_null(value: object) -> bytes:
    if value is not None:
        _mismatch(ValueType.NULL, value)
    return b""


def _decode_null(data: bytes) -> None:
    if data:
        raise ValueError("null has no bytes")


_ENCODERS: Final[dict[ValueType, Callable[[object], bytes]]] = {
    ValueType.BYTES: _encode_bytes,
    ValueType.TEXT: _encode_text,
    ValueType.JSON: _encode_json,
    ValueType.INTEGER: _encode_integer,
    ValueType.DECIMAL: _encode_decimal,
    ValueType.DATETIME: _encode_datetime,
    ValueType.DATE: _encode_date,
    ValueType.UUID: _encode_uuid,
    ValueType.BOOL: _encode_bool,
    ValueType.FLOAT: _encode_float,
    ValueType.NULL: _encode_null,
}

_DECODERS: Final[dict[int, Callable[[bytes], object]]] = {
    ValueType.BYTES: bytes,
    ValueType.TEXT: bytes.decode,
    ValueType.JSON: read_json,
    ValueType.INTEGER: _decode_integer,
    ValueType.DECIMAL: _decode_decimal,
    ValueType.DATETIME: _decode_datetime,
    ValueType.DATE: _decode_date,
    ValueType.UUID: _decode_uuid,
    ValueType.BOOL: _decode_bool,
    ValueType.FLOAT: _decode_float,
    ValueType.NULL: _decode_null,
}
