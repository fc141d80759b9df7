from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest

from keystead.errors import InvalidCiphertextError
from keystead.model import EncryptedData
from tests.crypto.vectors import cases

TESTS = cases("encrypted-data-v1.json")
BLOB = bytes.fromhex(TESTS[0]["bytes"])
by_comment = pytest.mark.parametrize("case", TESTS, ids=lambda case: case["comment"])


@by_comment
def test_every_form_is_the_vector_files(case: dict[str, Any]) -> None:
    data = EncryptedData.from_dict(case["dict"])

    assert data.to_dict() == case["dict"]
    assert data.to_bytes().hex() == case["bytes"]
    assert str(data) == case["text"]


@by_comment
def test_every_form_is_read_back(case: dict[str, Any]) -> None:
    data = EncryptedData.from_dict(case["dict"])

    assert EncryptedData.parse(bytes.fromhex(case["bytes"])) == data
    assert EncryptedData.parse(case["text"]) == data


@pytest.mark.parametrize("case", cases("encrypted-data-v1.json", "read_only"), ids=lambda case: case["comment"])
def test_the_other_dicts_are_read(case: dict[str, Any]) -> None:
    data = EncryptedData.from_dict(case["dict"])

    assert (data.key_reference.provider, data.key_reference.key_id) == (case["provider"], case["key_id"])
    assert data.ciphertext.hex() == case["dict"]["ciphertext"]
    assert dict(data.context) == case["dict"]["context"]


def test_a_truncation_at_any_length_is_refused_or_loses_whole_pairs() -> None:
    whole = EncryptedData.from_bytes(BLOB)
    for length in range(len(BLOB)):
        try:
            data = EncryptedData.from_bytes(BLOB[:length])
        except InvalidCiphertextError:
            continue
        assert set(data.context.items()) < set(whole.context.items())


def test_a_flipped_bit_is_refused_as_malformed_or_read() -> None:
    for bit in range(len(BLOB) * 8):
        altered = bytearray(BLOB)
        altered[bit // 8] ^= 0x80 >> (bit % 8)
        with suppress(InvalidCiphertextError):
            EncryptedData.from_bytes(bytes(altered))
