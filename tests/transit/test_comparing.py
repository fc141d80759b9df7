"""Comparing with a recorded answer finds what is different, wherever it is."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.transit.replay.compare import differences, leaves
from tests.transit.replay.deviations import Allowed, Deviation, unwrapped
from tests.transit.replay.edits import edited
from tests.transit.replay.recordings import Exchange, names, scenario
from tests.transit.replay.wire import Answer, Request

ALL = [(name, each) for name in names() for each in scenario(name).exchanges if each.recorded.status is not None]
with_a_body = st.sampled_from([(name, each) for name, each in ALL if isinstance(each.recorded.body, dict)])


def answer_to(exchange: Exchange) -> Answer:
    """Return the recorded answer, with values where markers were."""
    headers = {name.lower(): value for name, value in exchange.recorded.headers.items()}
    return Answer(exchange.recorded.status, headers, _live(exchange.recorded.body))


def _live(value: Any) -> Any:
    text = json.dumps(value)
    for marker in ("unix_time", "ttl"):
        text = text.replace(f'"<volatile:{marker}>"', "7")
    return json.loads(text.replace("<volatile:", "<a live "))


def _put(value: Any, path: str, new: Any) -> Any:
    copy = json.loads(json.dumps(value))
    inner, (*before, last) = copy, path.split(".")
    for part in before:
        inner = inner[int(part)] if isinstance(inner, list) else inner[part]
    inner[int(last) if isinstance(inner, list) else last] = new
    return copy


@pytest.mark.parametrize("name", names())
def test_the_recorded_answer_is_not_different_from_itself(name: str) -> None:
    assert [
        found for each, exchange in ALL if each == name for found in differences(name, exchange, answer_to(exchange))
    ] == []


@given(which=with_a_body, data=st.data())
def test_a_leaf_of_another_type_is_a_difference(which: tuple[str, Exchange], data: st.DataObject) -> None:
    name, exchange = which
    answer = answer_to(exchange)
    paths = [path for path in leaves(answer.body) if "$" not in path]
    path = data.draw(st.sampled_from(paths or ["errors"]))
    changed = replace(answer, body=_put(answer.body, path, {"something": "else"}))
    assert [each for each in differences(name, exchange, changed) if each.place.startswith(f"body.{path}")]


@given(which=with_a_body, text=st.text(min_size=1))
def test_a_leaf_that_nobody_recorded_is_a_difference(which: tuple[str, Exchange], text: str) -> None:
    name, exchange = which
    answer = answer_to(exchange)
    (found,) = differences(name, exchange, replace(answer, body={**answer.body, "one more": text}))
    assert (found.place, found.recorded) == ("body.one more", "<nothing>")


@given(which=st.sampled_from(ALL), status=st.sampled_from([200, 204, 400, 403, 404, 500, None]))
def test_another_status_is_a_difference(which: tuple[str, Exchange], status: int | None) -> None:
    name, exchange = which
    found = differences(name, exchange, replace(answer_to(exchange), status=status))
    assert bool(found) is (status != exchange.recorded.status)


def test_a_value_that_varies_keeps_its_type_and_its_version() -> None:
    exchange = scenario("associated-data").exchanges[2]
    assert "data.ciphertext" in exchange.varies
    body = answer_to(exchange).body

    def places(ciphertext: Any) -> list[str]:
        answer = replace(answer_to(exchange), body=_put(body, "data.ciphertext", ciphertext))
        return [each.place for each in differences("x", exchange, answer)]

    assert places("vault:v1:AAAA") == []
    assert places("vault:v2:AAAA") == places("AAAA") == places(7) == ["body.data.ciphertext"]


@pytest.mark.parametrize(
    ("edit", "text", "expected"),
    [
        ({"op": "cut", "to": 3}, "abcdef", "abc"),
        ({"op": "append", "text": "!"}, "abc", "abc!"),
        ({"op": "replace", "old": "b", "new": "x"}, "abb", "axb"),
        ({"op": "flip", "at": 0, "bit": 0}, "vault:v1:AAAA", "vault:v1:AQAA"),
        ({"op": "flip", "at": -1, "bit": 7, "url": True}, "vault:v1:AAA", "vault:v1:AIA"),
        ({"op": "cut_bytes", "to": 1}, "vault:v1:AAAA", "vault:v1:AA=="),
        ({"op": "append_bytes", "hex": "ff"}, "AAAA", "AAAA/w=="),
    ],
)
def test_an_edit_changes_what_it_says(edit: dict[str, Any], text: str, expected: str) -> None:
    assert edited(text, [edit]) == expected


def test_an_error_in_a_list_is_taken_out_of_it() -> None:
    assert unwrapped("1 error occurred:\n\t* no such key\n\n") == ["no such key"]
    assert unwrapped("2 errors occurred:\n\t* permission denied\n\t* invalid request\n\n") == [
        "permission denied",
        "invalid request",
    ]
    assert unwrapped("no such key") == ["no such key"]
    several_lines = "failed to parse batch input: decoding failed due to the following error(s):\n\n'[0].x' is wrong"
    assert unwrapped(f"1 error occurred:\n\t* {several_lines}\n\n") == [several_lines]


def test_an_error_of_the_user_is_expected_with_400_and_its_text() -> None:
    exchange = next(each for _, each in ALL if each.recorded.status == 500 and "1 error occ" in str(each.recorded.body))
    expected = Allowed(answers_user_errors_400=True).expected(exchange)
    assert expected.recorded.status == 400
    (text,) = expected.recorded.body["errors"]
    assert text in exchange.recorded.body["errors"][0]
    assert Allowed().expected(exchange) is exchange


@pytest.mark.parametrize("name", names())
def test_the_recorded_answer_with_400_and_plain_texts_for_500_is_as_expected(name: str) -> None:
    allowed = Allowed(answers_user_errors_400=True)
    for each, exchange in ALL:
        if each == name:
            answer = answer_to(exchange)
            if answer.status == 500:
                plain = [text for error in answer.errors for text in unwrapped(error)]
                answer = replace(answer, status=400, body={**answer.body, "errors": plain} if plain else answer.body)
            assert differences(name, allowed.expected(exchange), answer) == []


def test_a_row_accounts_for_what_it_names_and_nothing_else() -> None:
    exchange = scenario("associated-data").exchanges[2]
    refusal = Answer(400, {}, {"errors": ["not here"]})
    found = differences("associated-data", exchange, refusal)
    assert Deviation("it is refused", status=400).left(found, refusal) == []
    assert Deviation("it is refused", status=400).left(found, replace(refusal, body={"errors": []})) == found
    assert Deviation("it is refused", status=403).left(found, refusal) == found
    left = Deviation("other fields", places=("body.*",)).left(found, refusal)
    assert [each.place for each in left] == ["status", "headers.Cache-Control", "headers.Content-Type"]


def test_a_row_covers_by_scenario_index_path_and_request() -> None:
    exchange = scenario("associated-data").exchanges[2]
    request = Request("POST", exchange.path, body=exchange.body)
    assert Deviation("all").covers("associated-data", exchange, request)
    assert Deviation("some", scenario="associated-data", indexes=frozenset({3})).covers(
        "associated-data", exchange, request
    )
    for row in (
        Deviation("another scenario", scenario="keys"),
        Deviation("another exchange", indexes=frozenset({4})),
        Deviation("another path", path="/v1/transit/keys/.*"),
        Deviation("another method", method="GET"),
        Deviation("another body", when=lambda asked: asked.body is None),
    ):
        assert not row.covers("associated-data", exchange, request)
