"""Documents are bounded before they are looked at, prepared once, and give away nothing of the schema."""

from __future__ import annotations

import time

import pytest
from graphql import build_schema, print_schema

from keystead.server.graphql import documents
from keystead.server.graphql.documents import MAX_TEXT, Documents, Prepared
from keystead.server.graphql.schema import new_schema

SCHEMA = build_schema(print_schema(new_schema(is_development=True)._schema))
LISTED = 'listClientEncryptionKeys(deviceId: "a")'


@pytest.fixture
def prepare() -> Documents:
    """What prepares documents, as outside development."""
    return Documents(SCHEMA, shows_itself=False)


def told(prepared: Prepared) -> str:
    assert prepared.errors
    return prepared.errors[0].message


def test_a_document_is_prepared_once(prepare: Documents) -> None:
    text = f"query {{ {LISTED} {{ keyId }} }}"
    first = prepare.prepare(text)
    assert first.errors == ()
    assert prepare.prepare(text) is first
    wrong = prepare.prepare("query { nothing }")
    assert prepare.prepare("query { nothing }") is wrong


def test_no_more_documents_are_kept_than_are_allowed(prepare: Documents, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(documents, "KEPT", 3)
    for number in range(9):
        prepare.prepare(f"query Q{number} {{ {LISTED} {{ keyId }} }}")
    prepare.prepare("#" + " " * MAX_TEXT)
    assert len(prepare._kept) == 3


@pytest.mark.parametrize(
    "text",
    [
        "mutation { a: verifySecret b: verifySecret }",
        "mutation { ...F ...F } fragment F on Mutation { verifySecret }",
        "mutation { ...F } fragment F on Mutation { verifySecret forgetUser }",
        "mutation { ... on Mutation { verifySecret } ... { verifySecret } }",
        "mutation A { __typename } mutation B { a: __typename b: __typename }",
    ],
)
def test_an_operation_does_one_thing_however_it_is_written(prepare: Documents, text: str) -> None:
    assert told(prepare.prepare(text)) == "an operation does one thing: send one mutation a request"


def test_documents_that_would_cost_much_are_refused_without_that_cost(prepare: Documents) -> None:
    depth = "{ keyId }"
    for _ in range(20):
        depth = f"{{ a {depth} }}"
    doubled = "query { ...F0 } " + " ".join(f"fragment F{n} on Query {{ ...F{n + 1} ...F{n + 1} }}" for n in range(30))
    doubled += " fragment F30 on Query { __typename }"
    cases = {
        "a document has up to 16384 characters": "query { " + " " * MAX_TEXT + "}",
        "more than 1500 tokens": "query { " + "a " * 1_500 + "}",
        "up to 100 fields and fragment spreads": "query { " + "a " * 101 + "}",
        "up to 16 levels": f"query {depth}",
        "up to 1000 fields, its fragments put in": doubled,
        "is part of itself": "query { ...A } fragment A on Query { ...B } fragment B on Query { ...A }",
        "fragment 'Z' is part of itself": "query { __typename } fragment Z on Query { ...Z }",
        "up to 10 operations": " ".join(f"query Q{n} {{ __typename }}" for n in range(11)),
        "nested too deeply": "query " + "{ a" * 990,
        "Syntax Error": "query {",
    }
    for message, text in cases.items():
        begun = time.process_time()
        assert message in told(prepare.prepare(text)), message
        assert time.process_time() - begun < 0.5


def overlapping() -> list[str]:
    """Return documents that are as hard to validate as the bounds allow."""
    same = "a: __typename " * 149
    nested = "query { " + " ".join(f"...F{n}" for n in range(48)) + " } "
    nested += " ".join(f"fragment F{n} on Query {{ a: __typename b: __typename }}" for n in range(48))
    inputs = "query { " + " ".join(f"{LISTED.replace('list', f'x{n}: list')} {{ keyId }}" for n in range(70)) + " }"
    unknown = "query { " + " ".join(f"listClientEncryptionKey{n}" for n in range(140)) + " }"
    variables = "query(" + " ".join(f"$v{n}: String" for n in range(300)) + ") { __typename }"
    deep = "query { " + "... on Query { " * 200 + "__typename" + " }" * 200 + " }"
    return [f"query {{ {same} }}", nested, inputs, unknown, variables, deep]


@pytest.mark.parametrize("text", overlapping(), ids=["same", "fragments", "fields", "unknown", "variables", "deep"])
def test_the_hardest_documents_within_the_bounds_are_validated_soon(prepare: Documents, text: str) -> None:
    assert len(text) <= MAX_TEXT
    begun = time.process_time()
    prepare.prepare(text)
    # The bar is 50 ms, measured beside nothing else; here others work on the machine as well.
    assert time.process_time() - begun < 0.5


@pytest.mark.parametrize("text", ["{ __schema { types { name } } }", '{ __type(name: "Query") { name } }'])
def test_the_schema_is_shown_in_development_alone(prepare: Documents, text: str) -> None:
    assert "introspection" in told(prepare.prepare(text))
    assert Documents(SCHEMA, shows_itself=True).prepare(text).errors == ()
    assert prepare.prepare("{ __typename }").errors == ()
