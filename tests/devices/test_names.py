from __future__ import annotations

import re
import unicodedata
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keystead.devices.names import checked_key_id, checked_name, new_key_id
from keystead.errors import InvalidInputError
from tests.crypto.vectors import load

NAMES = load("client-keys-v1.json")["device_ids"]
NOW = datetime(2030, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize("case", NAMES["taken"])
def test_a_device_id_is_taken_in_its_normal_form(case: dict[str, str]) -> None:
    assert checked_name(case["given"], "deviceId") == case["name"]


@pytest.mark.parametrize("sent", [*NAMES["refused"], None, 5, b"device"])
def test_one_that_cannot_be_printed_is_refused_by_its_name_and_not_shown(sent: object) -> None:
    with pytest.raises(InvalidInputError, match=r"^deviceId is a text of 1 to 128 printable characters$"):
        checked_name(sent, "deviceId")


@given(
    text=st.text(st.sampled_from("a \u0300\u00e9\u202e\x00\n\ud800\ue000\U0001f4b3") | st.characters(), max_size=140)
)
def test_whatever_is_sent_is_a_name_that_stays_what_it_is_or_is_refused(text: str) -> None:
    try:
        name = checked_name(text, "appVersion")
    except InvalidInputError:
        return
    assert checked_name(name, "appVersion") == name
    assert 1 <= len(name) <= 128
    assert not any(unicodedata.category(sign).startswith(("Cc", "Cs", "Zl", "Zp")) for sign in name)
    assert unicodedata.ucd_3_2_0.normalize("NFC", text) == name
    name.encode()


def test_a_key_id_has_the_documented_form_and_sorts_by_time() -> None:
    ids = [new_key_id(NOW + timedelta(milliseconds=count), bytes) for count in range(3)]
    assert ids[0] == "key_1893456000000_" + "0" * 24
    assert ids == sorted(ids)
    assert all(re.fullmatch(r"key_[0-9]+_[0-9a-f]{24}", each) and checked_key_id(each) == each for each in ids)


@pytest.mark.parametrize("sent", ["key-abc-123", "clm8x9z1a0000xyz1234abcd", "x" * 128])
def test_a_key_id_that_is_sent_is_opaque(sent: str) -> None:
    assert checked_key_id(sent) == sent


@pytest.mark.parametrize("sent", ["", "x" * 129, "a b", "a\n", "\u00e9", None, 7])
def test_what_no_key_id_can_be_is_refused(sent: object) -> None:
    with pytest.raises(InvalidInputError, match="key id"):
        checked_key_id(sent)
