from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from keystead.crypto.blind_index import (
    IndexKind,
    exact_index,
    exact_index_hex,
    index_input,
    normalised_index,
    prefix_index,
    token_indexes,
)
from keystead.crypto.normalise import Normaliser, normalise, tokens
from keystead.errors import InvalidInputError
from tests.crypto.vectors import cases, load

KEY = bytes(range(32))
TESTS = cases("blind-index-v1.json")


def _index(case: dict[str, Any]) -> bytes:
    key, value = bytes.fromhex(case["key"]), case["value"]
    where = (key, case["field_id"], case["tenant"])
    if case["kind"] == "exact":
        return exact_index(*where, value.encode())
    if case["kind"] == "normalised":
        return normalised_index(*where, value, normaliser=Normaliser(case["parameter"]))
    if case["kind"] == "prefix":
        return prefix_index(*where, value, length=case["parameter"])
    (only,) = token_indexes(*where, value)
    return only


@pytest.mark.parametrize("case", TESTS, ids=lambda case: f"{case['kind']} {case['parameter']} {case['field_id']}")
def test_the_index_is_the_vector_files(case: dict[str, Any]) -> None:
    assert _index(case).hex() == case["index"]


@pytest.mark.parametrize("case", [case for case in TESTS if case["kind"] == "normalised"])
def test_the_normalised_form_is_the_vector_files(case: dict[str, Any]) -> None:
    assert normalise(case["value"], Normaliser(case["parameter"])) == case["indexed"]


@pytest.mark.parametrize("case", load("blind-index-v1.json")["words"])
def test_the_words_are_the_vector_files(case: dict[str, Any]) -> None:
    assert tokens(case["value"]) == case["words"]


def test_one_value_has_another_index_in_another_field_tenant_kind_or_key() -> None:
    indexes = {
        exact_index(KEY, "users.email", "", b"ada"),
        exact_index(KEY, "users.name", "", b"ada"),
        exact_index(KEY, "users.email", "acme", b"ada"),
        exact_index(bytes(32), "users.email", "", b"ada"),
        normalised_index(KEY, "users.email", "", "ada", normaliser=Normaliser.CASE_AND_SPACE),
        normalised_index(KEY, "users.email", "", "ada", normaliser=Normaliser.EMAIL),
        prefix_index(KEY, "users.email", "", "ada", length=3),
        prefix_index(KEY, "users.email", "", "ada", length=4),
        *token_indexes(KEY, "users.email", "", "ada"),
    }

    assert len(indexes) == 9


names = st.text(st.characters(exclude_categories=["Cs"]), max_size=4)
inputs = st.tuples(names, names, st.sampled_from(IndexKind), st.integers(0, 255), st.binary(max_size=4))


@given(inputs, inputs)
def test_two_inputs_are_the_same_only_if_every_part_is(first: Any, second: Any) -> None:
    def encode(parts: Any) -> bytes:
        field_id, tenant, kind, parameter, value = parts
        return index_input(field_id, tenant, kind=kind, parameter=parameter, value=value)

    assert (encode(first) == encode(second)) == (first == second)


def test_a_truncated_index_is_the_beginning_of_the_whole() -> None:
    whole = exact_index(KEY, "f", "", b"ada")

    assert len(whole) == 32
    assert [exact_index(KEY, "f", "", b"ada", size=size) for size in (1, 8, 32)] == [whole[:1], whole[:8], whole]
    assert {len(index) for index in token_indexes(KEY, "f", "", "ada of", size=4)} == {4}


def test_the_hex_form_fits_a_column_of_64_characters() -> None:
    assert exact_index_hex(KEY, "f", "", b"ada") == exact_index(KEY, "f", "", b"ada").hex()
    assert len(exact_index_hex(KEY, "f", "", b"")) == 64


def test_a_wipeable_key_gives_the_same_index() -> None:
    assert exact_index(bytearray(KEY), "f", "", b"ada") == exact_index(KEY, "f", "", b"ada")


def test_a_value_shorter_than_the_prefix_is_indexed_whole() -> None:
    assert prefix_index(KEY, "f", "", "Ad", length=3) == prefix_index(KEY, "f", "", " ad ", length=3)
    assert prefix_index(KEY, "f", "", "Ad", length=3) != prefix_index(KEY, "f", "", "Ada", length=3)


def test_the_order_of_token_indexes_does_not_tell_the_order_of_words() -> None:
    assert token_indexes(KEY, "f", "", "ada lovelace of") == token_indexes(KEY, "f", "", "of Lovelace, ADA")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: exact_index(bytes(31), "f", "", b"a"), "32 bytes"),
        (lambda: exact_index(KEY, "f", "", b"a", size=0), "1 to 32"),
        (lambda: exact_index(KEY, "f", "", b"a", size=33), "1 to 32"),
        (lambda: exact_index(KEY, "\ud800", "", b"a"), "surrogate"),
        (lambda: exact_index(KEY, "f", "\ud800", b"a"), "surrogate"),
        (lambda: normalised_index(KEY, "f", "", "\ud800", normaliser=Normaliser.EMAIL), "surrogate"),
        (lambda: prefix_index(KEY, "f", "", "a", length=0), "1 to 255"),
        (lambda: prefix_index(KEY, "f", "", "a", length=256), "1 to 255"),
        (lambda: index_input("f", "", kind=IndexKind.EXACT, parameter=256, value=b""), "one byte"),
    ],
)
def test_bad_input_is_refused_with_the_bounds(call: Callable[[], object], message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        call()


def test_text_for_an_exact_index_is_refused_with_the_cure() -> None:
    text: Any = "ada"

    with pytest.raises(InvalidInputError, match=r"\.encode\(\)"):
        exact_index(KEY, "f", "", text)


def test_every_python_release_normalises_alike() -> None:
    blocks = [(0, 0x3400), (0xF900, 0x10000), (0x10300, 0x10500), (0x1D100, 0x1D800), (0x1F000, 0x1FB00)]
    digest = hashlib.sha256()
    for start, end in blocks:
        for code_point in range(start, end):
            digest.update(normalise(f"a{chr(code_point)}b").encode() + b"\x00")

    assert digest.hexdigest() == "7ded84f7ca9a39d47e09333556595fcf053d6f3ed0f29c2c2b525d7075bbaf23"


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=20), st.sampled_from(Normaliser))
def test_normalising_twice_changes_nothing(text: str, normaliser: Normaliser) -> None:
    once = normalise(text, normaliser)

    assert normalise(once, normaliser) == once


@given(st.text("0019+() :-/\u0660\uff10", max_size=12))
@example("0:0")
@example("\u0660\u06601")
@example("(0)049")
@example("0+0")
def test_normalising_a_telephone_number_twice_changes_nothing(text: str) -> None:
    once = normalise(text, Normaliser.PHONE)

    assert normalise(once, Normaliser.PHONE) == once


@pytest.mark.parametrize("text", ["", "n/a", "+", "00"])
def test_a_telephone_number_without_digits_has_a_form_all_the_same(text: str) -> None:
    assert normalise(text, Normaliser.PHONE) in ("", "+")


def test_a_mark_that_loses_its_space_joins_its_letter() -> None:
    assert normalise("A\u00b4", Normaliser.EMAIL) == "\u00e1"
