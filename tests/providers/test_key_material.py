"""Key material as the vectors have it."""

from __future__ import annotations

import os
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keystead.providers.key_material import Decoded, KeyMaterial, decode, distinct, fingerprint, newest_first
from keystead.providers.local.kek_material import version_number
from tests.crypto.vectors import cases

FILE = "key-material-v1.json"


@pytest.mark.parametrize("case", cases(FILE), ids=lambda case: case["comment"])
def test_a_vector_holds_its_keys(case: dict[str, Any]) -> None:
    decoded = decode(bytes.fromhex(case["content"]))
    assert [each.key.hex() for each in decoded.keys] == [each["key"] for each in case["keys"]]
    assert [each.fingerprint for each in decoded.keys] == [each["fingerprint"] for each in case["keys"]]
    assert (decoded.problem, decoded.looks_like_text) == (None, case["looks_like_text"])


@pytest.mark.parametrize("case", cases(FILE), ids=lambda case: case["comment"])
def test_a_vector_has_its_numbers_as_versions_of_a_local_kek(case: dict[str, Any]) -> None:
    for key in case["keys"]:
        assert version_number(key["fingerprint"]) == key["local_kek_version"]


@pytest.mark.parametrize("case", cases(FILE, "refused"), ids=lambda case: case["comment"])
def test_a_refused_vector_holds_no_key_and_says_why(case: dict[str, Any]) -> None:
    decoded = decode(bytes.fromhex(case["content"]))
    assert decoded.keys == ()
    assert decoded.problem


@pytest.mark.parametrize("case", cases(FILE, "folders"), ids=lambda case: case["comment"])
def test_names_of_a_folder_are_in_their_order(case: dict[str, Any]) -> None:
    names = [name.encode() for name in case["newest_first"]]
    assert newest_first(sorted(names)) == names
    assert newest_first(reversed(names)) == names


@given(st.binary(max_size=200))
def test_any_bytes_hold_keys_or_a_problem_and_raise_nothing(content: bytes) -> None:
    decoded = decode(content)
    assert bool(decoded.keys) != bool(decoded.problem)


@given(st.lists(st.binary(min_size=32, max_size=32), min_size=1, max_size=5, unique=True))
def test_keys_are_found_again_in_every_way_to_write_them(keys: list[bytes]) -> None:
    text = "\n".join(key.hex() for key in keys).encode()
    assert [each.key for each in decode(text).keys] == keys


def test_one_more_byte_than_64_kib_is_too_long() -> None:
    assert decode(b"#" * (64 * 1024 + 1)).problem == "longer than 64 KiB"


def test_two_keys_of_one_fingerprint_are_refused() -> None:
    first, second = KeyMaterial.of(os.urandom(32)), KeyMaterial.of(os.urandom(32))
    forged = KeyMaterial(second.key, first.fingerprint)
    assert "two of its keys" in (distinct([first, forged]).problem or "")


def test_a_fingerprint_names_a_key_and_no_other() -> None:
    keys = [os.urandom(32) for _ in range(100)]
    assert len({fingerprint(key) for key in keys}) == 100


def test_no_text_shows_a_key() -> None:
    decoded = decode(b"a canary that must never be seen")
    assert isinstance(decoded, Decoded)
    assert "canary" not in f"{decoded} {decoded.keys[0]}"
