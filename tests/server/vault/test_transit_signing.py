"""What the recordings do not show of signatures, HMACs, random bytes and hashes over the wire."""

from __future__ import annotations

import base64
import threading
from pathlib import Path
from typing import Any, Final

import pytest

from keystead.access.callers import scopes_of
from keystead.transit import ecdsa_signatures, rsa_signatures
from tests.fakes.clock import FakeClock
from tests.server.clients import Installation, Node
from tests.server.vault.clients import VaultClient

FOX: Final = base64.b64encode(b"the quick brown fox").decode()
REPLACED: Final = "Endpoint replaced the value of these parameters with the values captured from the endpoint's path: "


@pytest.fixture
def installation(tmp_path: Path, clock: FakeClock) -> Installation:
    """A KEK, a store of one kind, for nothing here depends on it, and a clock."""
    return Installation(tmp_path, f"sqlite:///{tmp_path}/keys.db", clock)


async def client(node: Node, *scopes: str) -> VaultClient:
    """Return a client with a token of its own."""
    made = await node.service.tokens.create("app", scopes_of(scopes or ["transit:*:*"]))
    return VaultClient(node.app, "".join(made.text))


@pytest.mark.parametrize("is_batch", [False, True])
@pytest.mark.parametrize(("kind", "made"), [("ed25519", "signature"), ("hmac", "hmac")])
async def test_a_version_that_another_node_made_is_looked_for(
    installation: Installation, kind: str, made: str, is_batch: bool
) -> None:
    async with installation.node() as node, installation.node() as other:
        first, second = await client(node), await client(other)
        operation = "sign" if kind == "ed25519" else kind
        await first.gets("POST", "transit/keys/k", {"type": kind, **({"key_size": 32} if kind == "hmac" else {})})
        await second.gets("POST", f"transit/{operation}/k", {"input": FOX})
        await first.gets("POST", "transit/keys/k/rotate")
        text = (await first.gets("POST", f"transit/{operation}/k", {"input": FOX}))["data"][made]
        assert text.startswith("vault:v2:")
        one: dict[str, Any] = {"input": FOX, made: text}
        told = await second.gets("POST", "transit/verify/k", {"batch_input": [one]} if is_batch else one)
        assert (told["data"]["batch_results"][0] if is_batch else told["data"])["valid"] is True


@pytest.mark.parametrize("operation", ["sign", "hmac"])
async def test_a_version_that_another_node_made_can_be_named(installation: Installation, operation: str) -> None:
    async with installation.node() as node, installation.node() as other:
        first, second = await client(node), await client(other)
        await first.gets("POST", "transit/keys/k", {"type": "ed25519"})
        await second.gets("POST", f"transit/{operation}/k", {"input": FOX})
        await first.gets("POST", "transit/keys/k/rotate")
        made = await second.gets("POST", f"transit/{operation}/k", {"input": FOX, "key_version": 2})
        assert str(made["data"]["hmac" if operation == "hmac" else "signature"]).startswith("vault:v2:")
        assert await second.fails(400, "POST", f"transit/{operation}/k", {"input": FOX, "key_version": 3})


@pytest.mark.parametrize("kind", ["rsa-2048", "ecdsa-p384"])
async def test_slow_signatures_are_made_off_the_loop(node: Node, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    threads = set()
    for module in (rsa_signatures, ecdsa_signatures):
        real = module.sign

        def noted(*args: Any, real: Any = real) -> bytes:
            threads.add(threading.current_thread())
            return bytes(real(*args))

        monkeypatch.setattr(module, "sign", noted)
    program = await client(node)
    await program.gets("POST", "transit/keys/k", {"type": kind})
    await program.gets("POST", "transit/sign/k", {"input": FOX})
    assert threads
    assert threading.main_thread() not in threads


async def test_signing_verifying_and_hmac_each_take_their_scope(node: Node) -> None:
    everything = await client(node)
    await everything.gets("POST", "transit/keys/k", {"type": "ed25519"})
    bodies: dict[str, dict[str, Any]] = {"sign": {"input": FOX}, "hmac": {"input": FOX}}
    signature = (await everything.gets("POST", "transit/sign/k", bodies["sign"]))["data"]["signature"]
    bodies["verify"] = {"input": FOX, "signature": signature}
    for allowed in bodies:
        program = await client(node, f"transit:{allowed}:k")
        for operation, body in bodies.items():
            for path in (f"transit/{operation}/k", f"transit/{operation}/k/sha2-512"):
                await program.send("POST", path, body)
                assert (await program.send("POST", path, body)).status_code == (200 if operation == allowed else 403)
    for operation in ("random", "hash"):
        program = await client(node, f"transit:{operation}:*")
        answer = await program.gets("POST", f"transit/{operation}", {"input": FOX})
        assert answer["data"]
        assert await program.fails(403, "POST", f"transit/{'hash' if operation == 'random' else 'random'}", {})


async def test_what_a_body_says_for_a_part_of_the_path_counts_for_nothing_and_is_told(node: Node) -> None:
    program = await client(node)
    await program.gets("POST", "transit/keys/k", {"type": "ed25519"})
    body = {"input": FOX, "name": "other", "urlalgorithm": "md5", "zzz": 1}
    assert (await program.gets("POST", "transit/hmac/k", body))["warnings"] == [
        "Endpoint ignored these unrecognized parameters: [zzz]",
        f"{REPLACED}[name urlalgorithm]",
    ]
    assert (await program.gets("POST", "transit/random/seal", {"source": "all"}))["warnings"] == [
        "no seal/entropy augmentation available, using platform entropy source",
        f"{REPLACED}[source]",
    ]
    assert (await program.gets("POST", "transit/hmac/k", {"input": FOX, "name": None}))["warnings"] is None


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (5, "'' source data must be an array or slice, got string"),
        (True, "'' source data must be an array or slice, got bool"),
        ({}, "'' source data must be an array or slice, got map"),
        ([5], "[0]' expected type 'transit.batchRequestSignItem', got unconvertible type 'json.Number'"),
        ([{"input": True}], "[0][input]' expected type 'string', got unconvertible type 'bool'"),
        ([{}, {"other": []}], "[1][other]' expected type 'string', got unconvertible type '[]interface {}'"),
    ],
)
async def test_a_batch_of_something_else_is_refused_whole(node: Node, given: Any, told: str) -> None:
    program = await client(node)
    await program.gets("POST", "transit/keys/k", {"type": "ed25519"})
    (error,) = await program.fails(400, "POST", "transit/sign/k", {"batch_input": given})
    assert error.startswith("failed to parse batch input: ")
    assert error.endswith(told)


async def test_items_of_a_batch_are_numbers_and_null_at_most_and_answered_each(node: Node) -> None:
    program = await client(node)
    await program.gets("POST", "transit/keys/k", {"type": "ed25519"})
    items = [{"input": None, "reference": 7}, None, {"input": FOX, "context": "!!"}]
    results = (await program.gets("POST", "transit/sign/k", {"batch_input": items}))["data"]["batch_results"]
    assert results[0]["signature"] == (await program.gets("POST", "transit/sign/k", {}))["data"]["signature"]
    assert results[0]["reference"] == "7"
    assert results[1:] == [
        {"error": "missing input", "key_version": 0, "reference": ""},
        {"error": "failed to base64-decode context", "key_version": 0, "reference": ""},
    ]


@pytest.mark.parametrize(
    ("path", "told"),
    [
        ("random/junk", 'error parsing url-set byte count: strconv.Atoi: parsing "junk": invalid syntax'),
        ("random/a/b/c", 'error parsing url-set byte count: strconv.Atoi: parsing "b/c": invalid syntax'),
        (f"random/{10**30}", f'error parsing url-set byte count: strconv.Atoi: parsing "{10**30}": value out of range'),
        ("random/5/6", 'unsupported entropy source "5"; must be "platform" or "seal", or "all"'),
        ("random/-1", "'bytes' cannot be less than 1"),
        ("random/0", "'bytes' cannot be less than 1"),
        ("hash/", "cannot write to a path ending in '/'"),
        ("sign/k/", "cannot write to a path ending in '/'"),
        ("sign/k/a/b", 'invalid hash algorithm "a/b"'),
    ],
)
async def test_paths_that_name_nothing_are_refused(node: Node, path: str, told: str) -> None:
    program = await client(node)
    await program.gets("POST", "transit/keys/k", {"type": "ed25519"})
    assert await program.fails(400, "POST", f"transit/{path}", {"input": FOX}) == [told]
