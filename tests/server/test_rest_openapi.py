"""The document is the one that is committed, is served to anybody, and describes every operation."""

from __future__ import annotations

import json
from typing import Any

import pytest

from keystead.access.callers import Scope
from scripts.gen_openapi import TARGET, text
from tests.server.clients import Node
from tests.server.rest import OPERATIONS, Administrator, described, routes


def test_the_document_is_the_one_that_is_committed() -> None:
    assert TARGET.read_text(encoding="utf-8") == text(), "run python -m scripts.gen_openapi"


async def test_anybody_may_read_the_document(node: Node) -> None:
    answer = await Administrator(node.app).send("GET", "/openapi.json")
    assert answer.json() == described()
    assert answer.json()["openapi"].startswith("3.1")


def operations() -> dict[str, dict[str, Any]]:
    return {each["operationId"]: each for path in described()["paths"].values() for each in path.values()}


def test_every_operation_is_described() -> None:
    assert set(operations()) == set(OPERATIONS) == {str(route.operation_id) for route in routes()}
    tags = {tag["name"] for tag in described()["tags"]}
    for name, operation in operations().items():
        scope = OPERATIONS[name].scope
        assert operation["security"] == [{"token": [scope.value]}]
        assert f"Scope: `{scope}`." in operation["description"]
        assert len(operation["description"]) > 60
        assert operation["summary"]
        assert set(operation["tags"]) <= tags
        assert set(operation["responses"]) >= {"400", "401", "403", "413", "415", "500", "503"}
        assert "422" not in operation["responses"]
        done = [status for status in operation["responses"] if status < "300"]
        assert len(done) == 1
        for parameter in operation.get("parameters", ()):
            assert parameter["description"], f"{name}: {parameter['name']}"


def test_what_is_sent_has_no_members_but_those_described() -> None:
    schemas = described()["components"]["schemas"]
    sent = {
        choice["$ref"].rpartition("/")[2]
        for operation in operations().values()
        if "requestBody" in operation
        for schema in [operation["requestBody"]["content"]["application/json"]["schema"]]
        for choice in schema.get("anyOf", [schema])
        if "$ref" in choice
    }
    assert sent == {
        "NewKeyring",
        "Rotation",
        "Destruction",
        "Rewrapping",
        "NewToken",
        "NewAppRole",
        "NewJwtRole",
        "NewWish",
    }
    assert all(schemas[name]["additionalProperties"] is False for name in sent)


def test_the_bounds_of_what_is_sent_are_in_the_document() -> None:
    schemas = described()["components"]["schemas"]
    for name, member, least, most in (
        ("Rotation", "minAgeSeconds", 0, 315_360_000),
        ("NewToken", "expiresInSeconds", 1, 315_360_000),
        ("NewAppRole", "secretIdUses", 1, 1_000_000_000),
        ("NewJwtRole", "tokenTtlSeconds", 1, 315_360_000),
        ("Destruction", "waitSeconds", 604_800, 2_592_000),
    ):
        said = schemas[name]["properties"][member]
        number = next(each for each in said.get("anyOf", [said]) if each["type"] == "integer")
        assert (number["minimum"], number["maximum"]) == (least, most)


def references(value: Any) -> set[str]:
    if isinstance(value, dict):
        own = {value["$ref"]} if isinstance(value.get("$ref"), str) else set()
        return own.union(*map(references, value.values()))
    return set().union(*map(references, value)) if isinstance(value, list) else set()


def test_every_reference_leads_somewhere_and_nothing_is_left_over() -> None:
    made = json.loads(text())
    there = {f"#/components/{kind}/{name}" for kind in ("schemas", "responses") for name in made["components"][kind]}
    assert references(made) == there


def test_nothing_of_a_key_is_among_what_is_answered() -> None:
    schemas = described()["components"]["schemas"]
    members = {member.lower() for schema in schemas.values() for member in schema.get("properties", ())}
    innocent = {"secrets", "secretid", "secretidttlseconds", "secretiduses"}
    assert not {each for each in members if "wrappedkey" in each or "private" in each or "secret" in each} - innocent
    shown = [name for name, schema in schemas.items() if "token" in schema.get("properties", ())]
    assert shown == ["ShownToken"]
    assert [name for name, schema in schemas.items() if "secretId" in schema.get("properties", ())] == ["ShownSecretId"]


@pytest.mark.parametrize("scope", [Scope.KEYRINGS_READ, Scope.JOBS_READ, Scope.AUDIT_READ])
def test_a_scope_to_read_changes_nothing(scope: Scope) -> None:
    for route in routes():
        if route.needs.scope is scope:
            # A checkpoint states what is there already.
            assert route.methods == {"GET"} or route.operation_id == "makeAuditCheckpoint"
