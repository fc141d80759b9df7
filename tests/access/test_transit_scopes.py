"""Scopes of the engine: what each allows, and that it allows nothing else."""

from __future__ import annotations

import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keystead.access.callers import MAX_SCOPES, Caller, Scope, allowed_by, scopes_of
from keystead.access.transit_scopes import (
    KEYLESS,
    PATTERN,
    KeyGlob,
    TransitOperation,
    TransitRights,
    transit_rights,
    transit_scope,
)
from keystead.errors import InvalidInputError
from keystead.model import Principal

KEYED = [each for each in TransitOperation if each not in KEYLESS]
SIGNS = st.text("ab-._*/", min_size=1, max_size=12)
NAMES = st.text("ab-._/", min_size=0, max_size=12)


def rights(*scopes: str) -> TransitRights:
    return transit_rights(frozenset(map(transit_scope, scopes)))


def is_glob(text: str) -> bool:
    return "**" not in text and all(text.split("/"))


def test_every_operation_is_one_of_the_engine_and_no_other_is() -> None:
    assert {each.value for each in TransitOperation} == {
        *("create", "read", "list", "config", "rotate", "trim", "delete", "import", "encrypt", "decrypt", "rewrap"),
        *("datakey", "hmac", "sign", "verify", "random", "hash"),
    }


@pytest.mark.parametrize("allowed", KEYED)
def test_a_scope_allows_its_operation_on_its_key_and_nothing_else(allowed: TransitOperation) -> None:
    held = rights(f"transit:{allowed}:orders")
    for operation in TransitOperation:
        assert held.allow(operation, "orders") is (operation is allowed)
        for key in ("", "Orders", "orders2", "order", "x/orders", "orders/x", "orders\n", "*"):
            assert not held.allow(operation, key)


@pytest.mark.parametrize("allowed", sorted(KEYLESS))
def test_what_is_asked_of_no_key_takes_the_scope_for_it(allowed: str) -> None:
    assert rights(f"transit:{allowed}:*").allow(allowed)
    for others in ("transit:*:orders", "transit:*:orders-*", "transit:encrypt:*"):
        assert not rights(others).allow(allowed)
    with pytest.raises(InvalidInputError, match="asked of no key"):
        transit_scope(f"transit:{allowed}:orders")


def test_whether_an_operation_is_allowed_on_any_key_at_all_is_told_without_one() -> None:
    assert rights("transit:sign:a").allow_some("sign")
    assert rights("transit:*:a-*").allow_some("sign")
    assert not rights("transit:sign:a").allow_some("verify")
    assert not rights().allow_some("sign")


def test_every_operation_may_be_named_at_once() -> None:
    held = rights("transit:*:team/*")
    assert all(held.allow(each, "team/orders") for each in KEYED)
    assert not any(held.allow(each, key) for each in TransitOperation for key in ("team", "team/a/b", "teams/a", ""))
    assert all(rights("transit:*:*").allow(each, "" if each in KEYLESS else "orders") for each in TransitOperation)
    assert not any(held.allow("export", "team/orders") for held in (held, rights("transit:*:*")))


@pytest.mark.parametrize(
    ("glob", "fits", "does_not"),
    [
        ("orders-*", ["orders-", "orders-eu"], ["orders", "orders-eu/x", "Orders-eu"]),
        ("*-eu", ["-eu", "orders-eu"], ["eu", "orders-eu-2", "a/b-eu"]),
        ("a*b*c", ["abc", "axbyc", "abbcc"], ["ab", "ac", "acb", "abcx", "a/bc"]),
        ("aba*ba", ["ababa", "aba-ba"], ["aba"]),
        ("*/k", ["a/k", "/k"], ["k", "a/b/k"]),
        ("team/*/key", ["team/x/key", "team//key"], ["team/key", "team/x/y/key"]),
        ("a.c", ["a.c"], ["abc"]),
    ],
)
def test_a_glob_matches_whole_names_segment_by_segment(glob: str, fits: list[str], does_not: list[str]) -> None:
    held = rights(f"transit:sign:{glob}")
    assert [held.allow("sign", name) for name in fits] == [True] * len(fits)
    assert [held.allow("sign", name) for name in does_not] == [False] * len(does_not)


@given(SIGNS.filter(is_glob), NAMES)
def test_a_star_is_any_text_without_a_slash_and_nothing_else_is_special(glob: str, name: str) -> None:
    expected = re.fullmatch("[^/]*".join(map(re.escape, glob.split("*"))), name) is not None
    assert KeyGlob(glob).matches(name) is expected
    assert rights(f"transit:encrypt:{glob}").allow("encrypt", name) is expected


@given(NAMES.filter(bool).filter(is_glob))
def test_a_glob_without_a_star_matches_itself_alone(name: str) -> None:
    held = rights(f"transit:encrypt:{name}")
    assert held.allow("encrypt", name)
    assert not held.allow("encrypt", name + "a")
    assert not held.allow("encrypt", name.upper()) or name.upper() == name


@given(SIGNS)
def test_what_is_taken_is_what_the_pattern_describes(glob: str) -> None:
    text = f"transit:encrypt:{glob}"
    try:
        transit_scope(text)
    except InvalidInputError:
        assert not is_glob(glob)
        assert not re.search(PATTERN, text)
    else:
        assert is_glob(glob)
        assert re.search(PATTERN, text)


@pytest.mark.parametrize(
    "text",
    [
        "transit:encrypt",
        "transit:encrypt:",
        "transit::orders",
        "transit:Encrypt:orders",
        "transit:encrypt:orders decrypt",
        "transit:encrypt:a//b",
        "transit:encrypt:/a",
        "transit:encrypt:a/",
        "transit:encrypt:**",
        "transit:encrypt:a[bc]",
        "transit:encrypt:a?",
        "transit:encrypt:ä",
        "transit:encrypt:a\n",
        "transit:encrypt:a:b",
        "Transit:encrypt:a",
        "transit:encrypt:" + "a" * 300,
    ],
)
def test_a_malformed_scope_is_refused_with_the_form(text: str) -> None:
    with pytest.raises(InvalidInputError, match="transit:<operation>:<key glob>"):
        scopes_of(["devices:use", text])


def test_an_operation_that_there_is_not_is_refused_with_those_that_there_are() -> None:
    with pytest.raises(InvalidInputError, match=r"no operation 'export'; there are: \*, config, create"):
        scopes_of(["transit:export:*"])


def test_no_name_takes_long_to_match() -> None:
    glob = KeyGlob("*a" * 100 + "*b")
    begun = time.perf_counter()
    assert not glob.matches("a" * 10_000)
    assert time.perf_counter() - begun < 30


def test_scopes_of_both_kinds_go_together_but_not_without_bound() -> None:
    scopes, transit = allowed_by(scopes_of(["devices:use", "transit:sign:a", "transit:sign:a"]))
    assert scopes == {Scope.DEVICES_USE}
    assert transit == rights("transit:sign:a")
    caller = Caller(Principal("ada"), scopes, "token 1", transit)
    assert caller.may_transit("sign", "a")
    assert not caller.may_transit("sign", "b")
    assert not Caller(Principal("ada"), scopes, "token 1").may_transit("sign", "a")
    with pytest.raises(InvalidInputError, match=f"up to {MAX_SCOPES}"):
        scopes_of([f"transit:sign:{number}" for number in range(MAX_SCOPES + 1)])


def test_a_scope_of_a_later_release_allows_nothing() -> None:
    scopes, transit = allowed_by(["of:later", "transit:export:*", "transit:sign:a?", "transit:sign:a"])
    assert not scopes
    assert transit == rights("transit:sign:a")
