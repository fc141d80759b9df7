"""What comes in by POST /graphql is one request of a bounded size, and answers give away nothing."""

from __future__ import annotations

import base64
import json
import random
from collections import Counter
from datetime import datetime
from typing import Any

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from keystead.devices.pairs import Algorithm, public_der
from keystead.devices.statements import key_statement
from tests.server.clients import GENERATE, Client, Installation, Node


@pytest.mark.parametrize(
    ("body", "told"),
    [
        (b"", "no JSON"),
        (b"query { __typename }", "no JSON"),
        (b"[" * 50_000, "no JSON"),
        ([{"query": "{ __typename }"}], "batches are not taken"),
        ({}, '"query", a text'),
        ({"query": 5}, '"query", a text'),
        ("text", '"query", a text'),
        ({"query": "{ __typename }", "variables": []}, '"variables" is an object'),
        ({"query": "{ __typename }", "operationName": 5}, '"operationName" a text'),
    ],
    ids=["empty", "no JSON", "deep", "batch", "nothing", "number", "text", "list", "no name"],
)
async def test_what_is_not_one_request_is_refused(ada: Client, body: Any, told: str) -> None:
    response = await ada.post(body)
    assert response.status_code == 400
    (error,) = response.json()["errors"]
    assert told in error["message"]
    assert error["extensions"]["code"] == "BAD_USER_INPUT"


async def test_of_several_operations_one_is_named(ada: Client) -> None:
    both = "query A { a: __typename } query B { b: __typename }"
    for name in (None, "C", ""):
        response = await ada.post({"query": both, "operationName": name})
        assert response.status_code == 400
        assert "several and none is named" in response.json()["errors"][0]["message"]
    response = await ada.post({"query": both, "operationName": "B"})
    assert response.json() == {"data": {"b": "Query"}}


async def test_a_body_is_read_up_to_its_limit(ada: Client) -> None:
    query = {"query": "{ __typename }"}
    padded = json.dumps(query).encode() + b" " * 65_536
    assert (await ada.post(padded[:65_536])).status_code == 200
    response = await ada.post(padded[:65_537])
    assert (response.status_code, response.json()["errors"][0]["message"]) == (413, "a request has up to 65536 bytes")


async def test_nothing_is_asked_by_get(ada: Client) -> None:
    assert (await ada.get("/graphql?query={__typename}")).status_code == 405


async def test_a_document_that_is_wrong_is_answered_without_what_would_be_right(ada: Client) -> None:
    answer = await ada.ask("{ listClientEncryptionKey { keyId } }")
    (error,) = answer["errors"]
    assert error["message"] == "Cannot query field 'listClientEncryptionKey' on type 'Query'."
    assert error["extensions"] == {"code": "GRAPHQL_VALIDATION_FAILED"}
    wrong = await ada.ask(GENERATE, {"input": {"deviceId": "a", "appVersio": "1"}})
    (error,) = wrong["errors"]
    assert "Did you mean" not in error["message"]
    assert error["extensions"] == {"code": "BAD_USER_INPUT"}
    shown = await ada.ask("{ __schema { mutationType { fields { name } } } }")
    assert all("introspection" in error["message"] for error in shown["errors"])
    assert not shown.get("data")
    (error,) = (await ada.ask('mutation { encryptData(input: {data: "a", keyId: "key_1"}) }'))["errors"]
    assert error["message"] == "Cannot query field 'encryptData' on type 'Mutation'."


async def test_ids_that_cannot_be_are_refused_with_what_they_may_be(ada: Client) -> None:
    for device in ("", "a\u0000", "x" * 129, "\u202e"):
        error = await ada.fails(GENERATE, {"deviceId": device})
        assert error["code"] == "BAD_USER_INPUT"
        assert "1 to 128 printable characters" in error["message"]


async def test_whatever_is_sent_as_an_id_is_taken_or_refused_and_never_a_fault(installation: Installation) -> None:
    good = list("a '\"\\%\u00e9\u0301\U0001f4b3")
    signs = [*good, *"\u202e\ufeff\ue000\x00\n\x7f"]
    drawn, seen = random.Random(30), Counter[str]()
    async with installation.node(environ={"KEYSTEAD_KEYGEN_MAX_PER_USER": "1000"}) as node:
        ada = await node.client("ada")
        for _ in range(60):
            sizes = [drawn.choice([0, 1, 2, 128, 129]) for _ in range(2)]
            device, version = ["".join(drawn.choices(drawn.choice([good, signs]), k=size)) for size in sizes]
            given = {"deviceId": device, "appVersion": version, "kind": "X25519"}
            answer = await ada.ask(GENERATE, {"input": given})
            code = answer["errors"][0]["extensions"]["code"] if "errors" in answer else "OK"
            seen[code] += 1
    assert set(seen) == {"OK", "BAD_USER_INPUT"}


async def test_pages_of_an_origin_that_is_named_may_ask_and_no_others(installation: Installation) -> None:
    async with installation.node(environ={"KEYSTEAD_SERVER_ORIGINS": "https://app.example.com, https://b"}) as node:
        client = await node.client("ada")
        for origin, allowed in (
            ("https://app.example.com", "https://app.example.com"),
            ("https://example.com", None),
            ("http://localhost:8000", None),
        ):
            response = await client.post({"query": "{ __typename }"}, Origin=origin)
            assert response.headers.get("access-control-allow-origin") == allowed


async def test_pages_tell_where_things_are(node: Node) -> None:
    anonymous = await node.client()
    asked = await anonymous.get("/")
    assert "POST /graphql" in (await anonymous.get(asked.headers["location"])).text
    assert "type Mutation" in (await anonymous.get("/schema.graphql")).text
    assert (await anonymous.get("/livez")).json() == {"status": "ok"}
    assert (await anonymous.get("/readyz")).json() == {"status": "ok"}


async def test_the_signature_of_a_public_key_is_by_a_key_that_the_service_shows(node: Node, ada: Client) -> None:
    query = GENERATE.replace("publicKey keyId", "publicKey keyId expiresAt algorithm keySignature")
    key = (await ada.ask(query, {"input": {"deviceId": "device-123"}}))["data"]["generateClientEncryptionKey"]
    expires_at = datetime.fromisoformat(key["expiresAt"])
    spki = public_der(key["publicKey"])
    statement = key_statement(key["keyId"], "device-123", spki, expires_at, Algorithm(key["algorithm"]))
    shown = (await (await node.client()).get("/.well-known/keystead-keys")).json()
    assert shown["algorithm"] == "Ed25519"
    (public,) = (load_pem_public_key(pem.encode()) for pem in shown["keys"])
    assert isinstance(public, Ed25519PublicKey)
    public.verify(base64.b64decode(key["keySignature"]), statement)
    with pytest.raises(InvalidSignature):
        public.verify(base64.b64decode(key["keySignature"]), statement.replace(b"device-123", b"device-124"))
