"""Keys as the store keeps them, and values of plaintext columns as drivers give them."""

from __future__ import annotations

from datetime import UTC, date, datetime
from decimal import Decimal
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keystead.crypto.codec import ValueType, encode_value
from keystead.errors import InvalidInputError
from keystead.fields.plaintext import from_column, from_json
from keystead.fields.progress import ReencryptProgress, key_text, parse_key

NAME = UUID("00112233-4455-6677-8899-aabbccddeeff")

members = st.one_of(
    st.integers(), st.text(), st.uuids(), st.binary(), st.dates(), st.datetimes(), st.decimals(allow_nan=False)
)


@given(st.lists(members, min_size=1, max_size=3).map(tuple))
def test_a_key_comes_back_from_its_text(key: tuple[object, ...]) -> None:
    assert parse_key(key_text(key)) == key


def test_no_key_has_no_text_and_a_key_of_another_type_is_refused() -> None:
    assert parse_key(None) is None
    with pytest.raises(InvalidInputError, match="key_column"):
        key_text((object(),))


def test_the_time_left_is_told_from_the_pace_of_this_run() -> None:
    assert ReencryptProgress("job", 1000, 600, 600, 0, 10.0, read_before=400).seconds_left == 20.0
    assert ReencryptProgress("job", 1000, 400, 400, 0, 10.0, read_before=400).seconds_left is None


@pytest.mark.parametrize(
    ("kind", "given", "value"),
    [
        (ValueType.TEXT, "text", "text"),
        (ValueType.INTEGER, 5, 5),
        (ValueType.BYTES, memoryview(b"b"), b"b"),
        (ValueType.JSON, "123", "123"),
        (ValueType.JSON, {"a": 1}, {"a": 1}),
        (ValueType.DECIMAL, 1.5, Decimal("1.5")),
        (ValueType.DECIMAL, Decimal("1.50"), Decimal("1.50")),
        (ValueType.DATETIME, "2030-01-02 03:04:05", datetime(2030, 1, 2, 3, 4, 5, tzinfo=UTC)),
        (ValueType.DATE, "2030-01-02", date(2030, 1, 2)),
        (ValueType.UUID, NAME.hex, NAME),
        (ValueType.BOOL, 1, True),
        (ValueType.FLOAT, 3, 3.0),
        (ValueType.FLOAT, 1.5, 1.5),
    ],
)
def test_a_column_is_read_as_the_type_of_the_field(kind: ValueType, given: object, value: object) -> None:
    found = from_column(given, kind)
    assert (found, type(found)) == (value, type(value))
    encode_value(found, kind)


@pytest.mark.parametrize("given", [2**53 + 1, Decimal("0.1000000000000000055"), 10**400, Decimal("NaN")])
def test_a_number_with_more_digits_than_a_float_has_is_refused(given: object) -> None:
    with pytest.raises(InvalidInputError, match="no float"):
        from_column(given, ValueType.FLOAT)
    assert from_column(Decimal("0.10"), ValueType.FLOAT) == 0.1


@pytest.mark.parametrize("kind", [ValueType.DECIMAL, ValueType.DATE, ValueType.UUID])
def test_a_column_that_stands_for_no_such_value_is_refused_without_showing_it(kind: ValueType) -> None:
    with pytest.raises(InvalidInputError) as refused:
        from_column("hunter2!", kind)
    assert "hunter2" not in str(refused.value)


@pytest.mark.parametrize(
    ("text", "value"),
    [('{"a": 1}', {"a": 1}), ('"123"', "123"), ("123", 123), ("true", True), ("null", None), (7, 7)],
)
def test_the_text_of_a_json_column_is_read_once(text: object, value: object) -> None:
    found = from_json(text)
    assert (found, type(found)) == (value, type(value))


@pytest.mark.parametrize("text", ["hunter2!", "[" * 100_000])
def test_a_text_that_is_no_json_is_refused_without_showing_it(text: str) -> None:
    with pytest.raises(InvalidInputError, match="no json") as refused:
        from_json(text)
    assert "hunter2" not in str(refused.value)
