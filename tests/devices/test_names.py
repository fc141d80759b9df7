from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

import pytest

from keystead.devices.names import checked_key_id, checked_name, new_key_id
from keystead.errors import InvalidInputError
from tests.crypto.vectors import load

NAMES = load("client-keys-v1.json")["device_ids"]
NOW = datetime(2030, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize("case", NAMES["taken"])
def test_a_device_id_is_taken_in_its_normal_form(case: dict[str, str]) -> None:
    assert checked_name(case["given"], "deviceId") == case["name"]


@pytest.mark.parametrize("given", [*NAMES["refused"], None, 5, b"device"])
def test_one_that_cannot_be_printed_is_refused_by_its_name_and_not_shown(given: object) -> None:
    with pytest.raises(InvalidInputError, match=r"^deviceId is a text of 1 to 128 printable characters$"):
        checked_name(given, "deviceId")


def test_a_key_id_has_the_documented_form_and_sorts_by_time() -> None:
    ids = [new_key_id(NOW + timedelta(milliseconds=count), bytes) for count in range(3)]
    assert ids[0] == "key_1893456000000_" + "0" * 24
    assert ids == sorted(ids)
    assert all(re.fullmatch(r"key_[0-9]+_[0-9a-f]{24}", each) and checked_key_id(each) == each for each in ids)


@pytest.mark.parametrize("given", ["key-abc-123", "clm8x9z1a0000xyz1234abcd", "x" * 128])
def test_a_key_id_that_is_sent_is_opaque(given: str) -> None:
    assert checked_key_id(given) == given


@pytest.mark.parametrize("given", ["", "x" * 129, "a b", "a\n", "\u00e9", None, 7])
def test_what_no_key_id_can_be_is_refused(given: object) -> None:
    with pytest.raises(InvalidInputError, match="key id"):
        checked_key_id(given)
