"""What a token is told that it may do is what it may do."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import pytest

from keystead.access.callers import scopes_of
from keystead.access.transit_scopes import KEYLESS, TransitOperation
from tests.fakes.clock import FakeClock
from tests.server.clients import Installation, Node
from tests.server.vault.clients import VaultClient

ASKED: Final = {
    "read": (
        "GET",
        ("transit/keys/k", "transit/config/keys", "transit/export/encryption-key/k", "auth/token/lookup-self"),
    ),
    "list": ("LIST", ("transit/keys",)),
    "delete": ("DELETE", ("transit/keys/k", "transit/keys/k/soft-delete")),
    "update": (
        "POST",
        (
            *(f"transit/{verb}/k" for verb in ("encrypt", "decrypt", "rewrap", "hmac", "sign", "verify")),
            *(f"transit/keys/k{more}" for more in ("/config", "/rotate", "/trim", "/import", "/import_version")),
            *("transit/keys/k", "transit/datakey/plaintext/k", "transit/datakey/wrapped/k", "transit/sign/k/sha2-256"),
            *("transit/random", "transit/random/12", "transit/hash", "transit/hash/sha2-256", "transit/config/keys"),
            "auth/token/renew-self",
        ),
    ),
}
ELSEWHERE: Final = (
    "",
    "transit/nope",
    "transit/keys/k/nope",
    "secret/k",
    "transit/keys/other",
    "transit/encrypt/other",
)


@pytest.fixture
def installation(tmp_path: Path, clock: FakeClock) -> Installation:
    """A store of one kind, for nothing here depends on it."""
    return Installation(tmp_path, f"sqlite:///{tmp_path}/keys.db", clock)


async def client(node: Node, scope: str) -> VaultClient:
    made = await node.service.tokens.create("app", scopes_of([scope]))
    return VaultClient(node.app, "".join(made.text))


@pytest.mark.parametrize("operation", TransitOperation)
async def test_what_is_told_is_what_is_not_forbidden(node: Node, operation: TransitOperation) -> None:
    await (await client(node, "transit:create:k")).gets("POST", "transit/keys/k", {})
    caller = await client(node, f"transit:{operation}:{'*' if operation in KEYLESS else 'k'}")
    asked = [path for _, paths in ASKED.values() for path in paths]
    told = (await caller.send("POST", "sys/capabilities-self", {"paths": asked})).json()["data"]
    for word, (method, paths) in ASKED.items():
        for path in paths:
            answer = await caller.send(method, path, {} if method == "POST" else None)
            assert (word in told[path]) is (answer.status_code != 403), (word, path, told[path], answer.text)


async def test_of_a_path_that_is_none_or_of_another_key_nothing_is_allowed(node: Node) -> None:
    caller = await client(node, "transit:*:k")
    told = await caller.send("POST", "sys/capabilities-self", {"paths": list(ELSEWHERE[1:])})
    assert told.json()["data"] == {path: ["deny"] for path in ELSEWHERE[1:]}
    assert await caller.fails(400, "POST", "sys/capabilities-self", {"paths": list(ELSEWHERE)}) == [
        "1 error occurred:\n\t* missing path\n\n"
    ]


async def test_encrypting_is_told_apart_by_whether_it_may_make_the_key(node: Node) -> None:
    for scope, words in {
        "transit:encrypt:k": ["update"],
        "transit:create:k": ["create"],
        "transit:*:k": ["create", "update"],
    }.items():
        answer = await (await client(node, scope)).send("POST", "sys/capabilities-self", {"path": "transit/encrypt/k"})
        body = answer.json()
        assert body["data"] == {"transit/encrypt/k": words, "capabilities": words}
        assert body["transit/encrypt/k"] == body["capabilities"] == words


async def test_paths_that_are_named_as_the_envelope_change_nothing_of_it(node: Node) -> None:
    caller = await client(node, "transit:*:k")
    body = (await caller.send("POST", "sys/capabilities-self", {"paths": ["data", "auth", "request_id"]})).json()
    assert body["data"] == {"data": ["deny"], "auth": ["deny"], "request_id": ["deny"]}
    assert body["auth"] is None
    assert await caller.fails(400, "POST", "sys/capabilities-self", {}) == ["paths must be supplied"]
