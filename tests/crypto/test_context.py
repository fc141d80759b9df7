from __future__ import annotations

from types import MappingProxyType
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keystead.crypto.context import caller_aad, check_context, encode_context
from keystead.errors import InvalidInputError
from tests.crypto.vectors import cases, context_of

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=6)
contexts = st.dictionaries(texts, texts, max_size=4)


@pytest.mark.parametrize("case", cases("context-v1.json"), ids=lambda case: case["comment"])
def test_the_encoding_is_the_vector_files(case: dict[str, Any]) -> None:
    assert encode_context(context_of(case)).hex() == case["encoded"]


@pytest.mark.parametrize("case", cases("context-v1.json", "invalid"), ids=lambda case: case["comment"])
def test_lone_surrogates_are_refused(case: dict[str, Any]) -> None:
    with pytest.raises(InvalidInputError, match="surrogate"):
        encode_context(context_of(case))


@given(contexts, contexts)
def test_two_contexts_have_the_same_encoding_only_if_they_are_equal(
    first: dict[str, str], second: dict[str, str]
) -> None:
    assert (encode_context(first) == encode_context(second)) == (first == second)


@given(contexts)
def test_the_order_of_a_context_does_not_matter(context: dict[str, str]) -> None:
    assert encode_context(dict(reversed(context.items()))) == encode_context(context)


def _pairs(encoded: bytes) -> dict[str, str]:
    texts_read, at = [], 0
    while at < len(encoded):
        length = int.from_bytes(encoded[at : at + 4], "big")
        texts_read.append(encoded[at + 4 : at + 4 + length].decode())
        at += 4 + length
    return dict(zip(texts_read[::2], texts_read[1::2], strict=True))


@given(contexts)
def test_the_encoding_can_be_read_back(context: dict[str, str]) -> None:
    assert _pairs(encode_context(context)) == context


def test_no_context_and_an_empty_one_are_the_same() -> None:
    assert encode_context(None) == encode_context({}) == b""


def test_any_mapping_is_a_context() -> None:
    assert encode_context(MappingProxyType({"a": "b"})) == encode_context({"a": "b"})


@pytest.mark.parametrize("context", ["a", [("a", "b")], 5, b"a"])
def test_what_is_no_mapping_is_refused(context: Any) -> None:
    with pytest.raises(InvalidInputError, match="a context is a dict of str to str, not"):
        encode_context(context)


def test_a_value_that_is_no_text_is_refused_with_the_cure() -> None:
    context: Any = {"user_id": UUID(int=5)}

    with pytest.raises(InvalidInputError, match=r"'user_id' must be str, not UUID; pass str\(user_id\)"):
        encode_context(context)


def test_a_value_stays_out_of_the_message() -> None:
    context: Any = {"user_id": 4711}

    with pytest.raises(InvalidInputError) as caught:
        encode_context(context)
    assert "4711" not in str(caught.value)


@pytest.mark.parametrize("key", [b"a", 1, None])
def test_a_key_that_is_no_text_is_refused(key: Any) -> None:
    with pytest.raises(InvalidInputError, match=r"a context key must be str, not .*; pass str\(key\)"):
        encode_context({key: "a"})


@pytest.mark.parametrize("check", [caller_aad, check_context])
def test_a_caller_may_not_use_a_reserved_key(check: Any) -> None:
    with pytest.raises(InvalidInputError, match=r"reserved; rename 'keystead\.purpose'"):
        check({"a": "b", "keystead.purpose": "wrap"})


def test_keystead_itself_encodes_reserved_keys() -> None:
    assert encode_context({"keystead.purpose": "wrap"})


def test_a_key_that_only_resembles_a_reserved_one_is_allowed() -> None:
    assert check_context({"keystead": "a"}) == {"keystead": "a"}


def test_a_callers_bytes_are_the_encoding() -> None:
    assert caller_aad({"a": "b"}) == encode_context({"a": "b"})
    assert caller_aad(None) == b""


def test_a_checked_context_is_a_copy() -> None:
    context = {"a": "b"}

    checked = check_context(context)
    context["a"] = "c"

    assert checked == {"a": "b"}


def test_a_checked_none_is_empty() -> None:
    assert check_context(None) == {}
