from __future__ import annotations

import json
import math
import struct
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal, getcontext, localcontext
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keystead.crypto.codec import ValueType, decode_value, encode_value, parse_value_type
from keystead.errors import DecryptionError, InvalidInputError
from tests.crypto.vectors import cases

TESTS = cases("field-codec-v1.json")
readable = st.text(st.characters(exclude_categories=["Cs"]))
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | readable,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(readable, inner, max_size=3),
    max_leaves=8,
)
values = (
    st.none()
    | st.binary()
    | readable
    | st.dictionaries(readable, json_values, max_size=3)
    | st.lists(json_values, max_size=3)
    | st.integers()
    | st.decimals(allow_nan=False, allow_infinity=False)
    | st.datetimes(timezones=st.timezones(), min_value=datetime(2, 1, 1), max_value=datetime(9998, 1, 1))  # noqa: DTZ001
    | st.dates()
    | st.uuids()
    | st.booleans()
    | st.floats(allow_nan=False)
)


def _value(case: dict[str, Any]) -> object:
    read: dict[str, Callable[[str], object]] = {
        "bytes": bytes.fromhex,
        "text": str,
        "json": json.loads,
        "integer": int,
        "decimal": Decimal,
        "datetime": datetime.fromisoformat,
        "date": date.fromisoformat,
        "uuid": UUID,
        "bool": json.loads,
        "float": float,
        "null": json.loads,
    }
    return read[case["type"]](case["value"])


@pytest.mark.parametrize("case", TESTS, ids=lambda case: f"{case['type']} {case['value'][:30]}")
def test_the_plaintext_is_the_vector_files(case: dict[str, Any]) -> None:
    kind = parse_value_type(case["type"])

    assert encode_value(_value(case)).hex() == case["plaintext"]
    assert encode_value(_value(case), kind).hex() == case["plaintext"]


@pytest.mark.parametrize("case", TESTS, ids=lambda case: f"{case['type']} {case['value'][:30]}")
def test_the_vector_decodes_to_its_value(case: dict[str, Any]) -> None:
    decoded = decode_value(bytes.fromhex(case["plaintext"]), parse_value_type(case["type"]))

    assert type(decoded) is type(_value(case))
    assert repr(decoded) == repr(_value(case)) or decoded == _value(case)


@pytest.mark.parametrize("case", cases("field-codec-v1.json", "invalid"), ids=lambda case: case["comment"])
def test_a_malformed_plaintext_is_refused(case: dict[str, Any]) -> None:
    with pytest.raises(DecryptionError):
        decode_value(bytes.fromhex(case["plaintext"]))


@given(values)
def test_every_value_comes_back(value: object) -> None:
    decoded = decode_value(encode_value(value))

    # In the hour that a clock skips or repeats, times of two zones are never equal, even of one instant.
    assert decoded == (value.astimezone(UTC) if isinstance(value, datetime) else value)
    assert type(decoded) is type(value)


@given(st.binary(max_size=40))
def test_what_decodes_is_the_only_encoding_of_its_value(data: bytes) -> None:
    try:
        decoded = decode_value(data)
    except DecryptionError:
        return
    if data[0] != ValueType.JSON:
        assert encode_value(decoded) == data


@given(json_values)
def test_any_json_value_comes_back_when_json_is_asked_for(value: object) -> None:
    assert decode_value(encode_value(value, ValueType.JSON), ValueType.JSON) == value


def test_a_decimal_keeps_its_trailing_zeros_and_sign() -> None:
    assert str(decode_value(encode_value(Decimal("-0.500")))) == "-0.500"


def test_a_decimal_does_not_depend_on_the_threads_context() -> None:
    number = Decimal("1.5E+30")
    with localcontext() as lower_case:
        lower_case.capitals = 0
        lower_case.prec = 1
        encoded = encode_value(number)
        assert decode_value(encoded) == number
    assert getcontext().capitals == 1
    assert encoded == b"\x041.5E+30"


def test_the_members_of_json_keep_their_order() -> None:
    decoded = decode_value(encode_value({"b": 1, "a": 2}))

    assert isinstance(decoded, dict)
    assert list(decoded) == ["b", "a"]


def test_a_tuple_comes_back_as_a_list() -> None:
    assert decode_value(encode_value((1, (2,)))) == [1, [2]]


@pytest.mark.parametrize("kind", [bytearray, memoryview])
def test_bytes_like_values_are_bytes(kind: type[Any]) -> None:
    assert decode_value(encode_value(kind(b"abc"))) == b"abc"


def test_nan_comes_back() -> None:
    decoded = decode_value(encode_value(math.nan))

    assert isinstance(decoded, float)
    assert math.isnan(decoded)


def test_minus_zero_comes_back() -> None:
    assert struct.pack(">d", decode_value(encode_value(-0.0))) == struct.pack(">d", -0.0)


def test_a_datetime_comes_back_in_utc() -> None:
    moment = datetime(2026, 1, 31, 14, 0, tzinfo=timezone(timedelta(hours=2)))

    decoded = decode_value(encode_value(moment))

    assert decoded == moment
    assert isinstance(decoded, datetime)
    assert decoded.tzinfo is UTC


def test_a_naive_datetime_is_refused_with_the_cure() -> None:
    with pytest.raises(InvalidInputError, match="give it a timezone"):
        encode_value(datetime(2026, 1, 31))  # noqa: DTZ001


def test_a_datetime_outside_the_calendar_in_utc_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="outside the years"):
        encode_value(datetime(1, 1, 1, tzinfo=timezone(timedelta(hours=2))))


@pytest.mark.parametrize("number", [Decimal("NaN"), Decimal("-Infinity"), Decimal("sNaN")])
def test_a_decimal_that_is_not_finite_is_refused(number: Decimal) -> None:
    with pytest.raises(InvalidInputError, match="finite"):
        encode_value(number)


@pytest.mark.parametrize("value", [object(), {1, 2}, 1j, range(3)])
def test_a_class_no_type_holds_is_refused(value: object) -> None:
    with pytest.raises(InvalidInputError, match="a field cannot hold"):
        encode_value(value)


def _cycle() -> list[object]:
    ring: list[object] = []
    ring.append(ring)
    return ring


@pytest.mark.parametrize("value", [[math.nan], {"a": math.inf}, [b"a"], _cycle(), {"a": {1, 2}}, [10**5000]])
def test_what_json_cannot_hold_is_refused(value: object) -> None:
    with pytest.raises(InvalidInputError, match="not JSON"):
        encode_value(value)


@pytest.mark.parametrize("value", [{1: "a"}, [{"a": {None: 1}}], {True: 1}])
def test_a_json_key_that_would_come_back_as_text_is_refused(value: object) -> None:
    with pytest.raises(InvalidInputError, match="a JSON key must be str"):
        encode_value(value)


@pytest.mark.parametrize("value", ["\ud800", ["\ud800"], {"\ud800": 1}])
def test_a_lone_surrogate_is_refused(value: object) -> None:
    with pytest.raises(InvalidInputError, match="surrogate"):
        encode_value(value)


OTHER: dict[ValueType, list[object]] = {
    ValueType.BYTES: ["a", 1, None],
    ValueType.TEXT: [b"a", 1, None],
    ValueType.INTEGER: [True, 1.0, "1", None],
    ValueType.DECIMAL: [1, 1.0, "1"],
    ValueType.DATETIME: [date(2026, 1, 1), "2026-01-01"],
    ValueType.DATE: [datetime(2026, 1, 1, tzinfo=UTC), "2026-01-01"],
    ValueType.UUID: ["12345678-1234-5678-1234-567812345678", b"0" * 16],
    ValueType.BOOL: [1, 0, None],
    ValueType.FLOAT: [1, True, Decimal(1)],
    ValueType.NULL: [0, "", False],
}


@pytest.mark.parametrize(("kind", "value"), [(kind, value) for kind, many in OTHER.items() for value in many])
def test_a_value_is_never_converted_to_the_asked_type(kind: ValueType, value: object) -> None:
    with pytest.raises(InvalidInputError, match=f"of the type {kind.name.lower()} cannot hold"):
        encode_value(value, kind)


@pytest.mark.parametrize("kind", list(ValueType))
def test_another_type_than_expected_is_refused(kind: ValueType) -> None:
    sealed = b"\x01" if kind is not ValueType.TEXT else b"\x00"

    with pytest.raises(DecryptionError, match=f"not of the type {kind.name.lower()}"):
        decode_value(sealed, kind)


def test_json_nested_beyond_the_stack_is_refused() -> None:
    with pytest.raises(DecryptionError):
        decode_value(b"\x02" + b"[" * 200_000 + b"]" * 200_000)


def test_types_are_named_as_mission_documents_name_them() -> None:
    assert [parse_value_type(name) for name in ("text", "bytes", "json")] == [
        ValueType.TEXT,
        ValueType.BYTES,
        ValueType.JSON,
    ]


def test_an_unknown_type_name_is_refused_with_the_known_ones() -> None:
    with pytest.raises(InvalidInputError, match="use one of bytes, text, json"):
        parse_value_type("string")
