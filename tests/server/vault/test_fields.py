"""Parameters are read as a live server was seen to read them."""

from __future__ import annotations

from typing import Any

import pytest

from keystead.errors import InvalidInputError
from keystead.server.vault.fields import Fields

SPELT = [
    ("7", 7),
    ("+7", 7),
    ("-7", -7),
    ("0x1F", 31),
    ("0b11", 3),
    ("0o17", 15),
    ("017", 15),
    ("1_0", 10),
    ("0x_f", 15),
]
OTHERS = [("", 0), ("-0", 0), (None, 0), (True, 1), (False, 0), (2**62, 2**62)]


@pytest.mark.parametrize(("given", "number"), [*SPELT, *OTHERS])
def test_whole_numbers(given: Any, number: int) -> None:
    assert Fields({"n": given}).number("n", 5) == number


@pytest.mark.parametrize("given", ["x", " 7", "7 ", "7\n", "1__0", "_1", "1_", "08", "0x", "٣", "1.0", 1.0, 1.5, "0xg"])
def test_what_is_no_whole_number_is_refused(given: Any) -> None:
    with pytest.raises(InvalidInputError, match=r"'' cannot parse value as 'int': strconv\.ParseInt: invalid syntax$"):
        Fields({"n": given}).number("n")


@pytest.mark.parametrize("given", [10**20, -(10**20), "99999999999999999999"])
def test_a_number_of_more_than_64_bits_is_refused(given: Any) -> None:
    with pytest.raises(InvalidInputError, match=r"value out of range$"):
        Fields({"n": given}).number("n")


YES = ["1", "t", "T", "TRUE", "true", "True", 1, True]
NO = ["", "0", "f", "F", "FALSE", "false", "False", 0, False, None]


@pytest.mark.parametrize(("given", "flag"), [*((each, True) for each in YES), *((each, False) for each in NO)])
def test_truth_values(given: Any, flag: bool) -> None:
    assert Fields({"f": given}).flag("f", default=not flag) is flag


@pytest.mark.parametrize("given", ["yes", "tRUE", 2, -1, 1.0, 0.5])
def test_what_is_no_truth_value_is_refused(given: Any) -> None:
    with pytest.raises(
        InvalidInputError, match=r"'' cannot parse value as 'bool': strconv\.ParseBool: invalid syntax$"
    ):
        Fields({"f": given}).flag("f")


@pytest.mark.parametrize("given", [[], ["x"], {}])
def test_no_list_and_no_object_is_anything_else(given: Any) -> None:
    kind = "[]interface {}" if isinstance(given, list) else "map[string]interface {}"
    for read, wanted in ((Fields.text, "string"), (Fields.number, "int"), (Fields.flag, "bool")):
        with pytest.raises(InvalidInputError) as refused:
            read(Fields({"x": given}), "x")
        told = f"'' expected type '{wanted}', got unconvertible type '{kind}'"
        assert str(refused.value) == f'Field validation failed: error converting input for field "x": {told}'
