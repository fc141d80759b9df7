"""Answers that fit a schema and a document, and such that do not."""

from __future__ import annotations

from typing import Any

import pytest
from graphql import build_schema

from soak.conforming import problem_of

SCHEMA = build_schema("enum Kind { A B } type Key { id: String! kind: Kind! uses: Float } type Query { keys: [Key!]! }")
DOCUMENT = "{ all: keys { id ... on Key { kind } uses __typename } }"
KEY = {"id": "1", "kind": "A", "uses": 2.5, "__typename": "Key"}


def answer(**change: Any) -> dict[str, Any]:
    """Return an answer with one key, which is changed."""
    return {"data": {"all": [KEY | change]}}


@pytest.mark.parametrize(
    "body",
    [
        answer(),
        answer(uses=None),
        {"data": {"all": []}},
        {"data": None, "errors": [{"message": "no", "extensions": {"code": "FORBIDDEN"}}]},
    ],
)
def test_an_answer_that_fits_has_no_problem(body: dict[str, Any]) -> None:
    assert problem_of(SCHEMA, DOCUMENT, 200, body) is None


@pytest.mark.parametrize(
    ("status", "body", "told"),
    [
        (500, answer(), "HTTP 500"),
        (200, [], "no answer of GraphQL"),
        (200, {**answer(), "more": 1}, "no answer of GraphQL"),
        (200, answer(id=None), "data.all.id is null"),
        (200, answer(id=7), "data.all.id is no String"),
        (200, answer(kind="C"), "data.all.kind is none of Kind"),
        (200, answer(uses=True), "data.all.uses is no Float"),
        (200, {"data": {"all": [{"kind": "A", "uses": 1}]}}, "data.all.id is missing"),
        (200, {"data": {"all": None}}, "data.all is null"),
        (200, {"data": {"all": {}}}, "data.all"),
        (200, {"data": {"all": ["key"]}}, "data.all is no object"),
        (
            200,
            {"errors": [{"message": "x", "extensions": {"code": "INTERNAL_SERVER_ERROR"}}]},
            "error INTERNAL_SERVER_ERROR",
        ),
        (200, {"errors": [{"message": "x"}]}, "error None"),
    ],
)
def test_an_answer_that_does_not_fit_is_told(status: int, body: Any, told: str) -> None:
    assert problem_of(SCHEMA, DOCUMENT, status, body) == told
