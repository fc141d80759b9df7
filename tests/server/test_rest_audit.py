"""Whatever is changed by REST stands in the audit trail, with who changed it; and the trail is told."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest

from keystead import fields
from keystead.access.callers import Caller, Scope
from keystead.fields import Exact, Field
from keystead.ledger.audit.actor import LONGEST
from keystead.ledger.tlog.checkpoint import Checkpoint
from keystead.ledger.tlog.note import Note
from keystead.ledger.tlog.proof import ProofBundle
from keystead.manager import admin, audit_listing
from keystead.model import Act, Action, Principal
from keystead.ports import ReencryptionRecord
from keystead.server.actors import actor_of
from tests.access.roles import SCOPES, approle
from tests.fakes.clock import FakeClock
from tests.server.clients import Client, Installation, Node, lock
from tests.server.rest import OPERATIONS, Administrator, administrator, routes

_APPROLES, _JWT_ROLES = (OPERATIONS[name].path for name in ("createAppRole", "createJwtRole"))
CHANGES: dict[str, tuple[str, Any, str]] = {
    "createKeyring": ("/v1/keyrings", {"name": "orders"}, "key.create"),
    "rotateKeyring": ("/v1/keyrings/orders/rotate", None, "key.rotate"),
    "disableKey": ("/v1/keys/orders/1/disable", None, "key.disable"),
    "enableKey": ("/v1/keys/orders/1/enable", None, "key.enable"),
    "destroyKey": ("/v1/keys/orders/1/destroy", {"withoutSources": True}, "key.schedule_destroy"),
    "cancelDestroyKey": ("/v1/keys/orders/1/cancel-destroy", None, "key.cancel_destroy"),
    "rewrapKeys": ("/v1/rewrap", None, "key.rewrap"),
    "countKeyUses": ("/v1/keyrings/orders/count-uses", None, "keyring.count_uses"),
    "rotateIndexKey": ("/v1/keyrings/index/rotate-index", None, "key.rotate"),
    "abandonIndexRotation": ("/v1/keyrings/index/abandon-index-rotation", None, "key.disable"),
    "removeKeyUse": ("/v1/key-uses?keyring=orders&name=people", None, "use.drop"),
    "createToken": ("/v1/tokens", {"user": "a", "scopes": ["devices:use"]}, "token.create"),
    "revokeToken": ("/v1/tokens/{token}/revoke", None, "token.revoke"),
    "endSession": ("/v1/sessions/{session}/end", None, "session.end"),
    "releaseLockout": ("/v1/lockouts/passcode/ada/release", None, "secret.release"),
    "createAppRole": (_APPROLES, OPERATIONS["createAppRole"].body, "role.create"),
    "createSecretId": (f"{_APPROLES}/orders/secret-ids", None, "secret_id.create"),
    "deleteSecretId": (f"{_APPROLES}/billing/secret-ids/{{secret}}", None, "secret_id.delete"),
    "deleteAppRole": (f"{_APPROLES}/orders", None, "role.delete"),
    "createJwtRole": (_JWT_ROLES, OPERATIONS["createJwtRole"].body, "role.create"),
    "deleteJwtRole": (f"{_JWT_ROLES}/orders", None, "role.delete"),
    "approve": ("/v1/approvals/{yes}/approve", None, "approval.approve"),
    "refuse": ("/v1/approvals/{no}/refuse", None, "approval.refuse"),
    "revokeDevice": ("/v1/devices/device-123/revoke", None, "device.revoke"),
    "releaseDevice": ("/v1/devices/device-123/release", None, "device.release"),
    "forgetUser": ("/v1/users/ada/forget", None, "user.forget"),
    "pauseReencryption": ("/v1/reencryptions/job/pause", None, "reencrypt.pause"),
    "resumeReencryption": ("/v1/reencryptions/job/resume", None, "reencrypt.resume"),
    "cancelReencryption": ("/v1/reencryptions/job/cancel", None, "reencrypt.cancel"),
    "askReencryption": ("/v1/reencryption-wishes", {"field": "people.email", "kind": "run"}, "reencrypt.wish"),
    "cancelReencryptionWish": ("/v1/reencryption-wishes/{wish}/cancel", None, "reencrypt.cancel_wish"),
    "makeAuditCheckpoint": ("/v1/audit/checkpoint", None, "audit.checkpoint"),
    "runJob": ("/v1/jobs/keystead.rotate/run", None, "key.rotate"),
    "maintain": ("/v1/maintain", None, "client_key.upkeep"),
}


@pytest.fixture
async def node(installation: Installation) -> AsyncIterator[Node]:
    """A node whose store keeps an audit trail."""
    async with installation.node(environ={"KEYSTEAD_AUDIT_ENABLED": "true"}) as started:
        yield started


@pytest.fixture
async def root(node: Node) -> Administrator:
    """Who may do everything."""
    return await administrator(node)


async def make_ready(node: Node, ada: Client) -> dict[str, str]:
    """Make what is to be changed, and return the ids of a token, a secret id, a session and two approvals."""
    km = node.service.manager
    await ada.key()
    await ada.key("phone")
    field = Field("people", "email", indexes=(Exact(),))
    await km.load_fields(field)
    await km.register_field(field, "app:people")
    token = await node.service.tokens.create("bob", [Scope.DEVICES_USE])
    await node.service.access.roles.create("billing", SCOPES, approle())
    secret = await node.service.access.roles.create_secret_id("billing")
    await lock(node, "ada")
    session = await node.service.access.sessions.begin(Caller(Principal("bob"), frozenset(), "token none"))
    approvals = node.service.access.approvals
    yes, no = [(await approvals.ask(Act(Action.KEY_DESTROY, f"orders/{n}"), "bob")).id for n in range(2)]
    other = Field("people", "name")
    await km.load_fields(other)
    await km.register_field(other, "app:people")
    wish = await fields.wish(km, other.id, "plan")
    return {
        "wish": wish.id,
        "token": token.row.id,
        "secret": secret.row.id,
        "session": session.row.id,
        "yes": yes,
        "no": no,
    }


async def test_every_change_is_recorded_with_who_made_it(node: Node, ada: Client, clock: FakeClock) -> None:
    changing = {str(route.operation_id) for route in routes() if route.methods != {"GET"}}
    assert changing == set(CHANGES)
    km, session = node.service.manager, await node.service.manager.session()
    ids = await make_ready(node, ada)
    verbs = {str(route.operation_id): next(iter(route.methods or ())) for route in routes()}
    actors = {}
    for name, (path, body, _) in CHANGES.items():
        if name == "removeKeyUse":
            await admin.declare_use(km, "orders", "people", "app:people")
        if name == "pauseReencryption":
            async with session.surroundings.store.transaction() as work:
                await work.add_reencryption(ReencryptionRecord("job", "people.email", "sql:app", 100, "{}"))
        if name in ("runJob", "maintain"):
            await ada.key("tablet")
            # The wall time alone: what runs in the background by itself does not wake.
            clock.set(clock.now() + timedelta(days=80))
        made = await node.service.tokens.create(f"root of {name}", list(Scope))
        root = Administrator(node.app, "".join(made.text))
        answer = await root.send(verbs[name], path.format(**ids), body)
        assert answer.status_code < 300, f"{name}: {answer.text}"
        actors[name] = f"token {made.row.id}, user root of {name}"
    await km.audit.sequenced()
    told = {(entry.action, entry.actor) for entry in await km.audit.entries()}
    for name, (_, _, action) in CHANGES.items():
        assert (action, actors[name]) in told, name


async def test_entries_are_listed_the_newest_first(root: Administrator, clock: FakeClock) -> None:
    for name in ("alpha", "beta"):
        await root.post("/v1/keyrings", {"name": name})
        clock.advance(60)
    await root.post("/v1/audit/checkpoint")
    every = (await root.get("/v1/audit/entries", limit=500))["items"]
    numbers = [entry["record"] for entry in every]
    assert numbers == sorted(numbers, reverse=True)
    for limit in (1, 3):
        assert await root.all("/v1/audit/entries", limit=limit) == every
    made = await root.all("/v1/audit/entries", limit=1, action="keyring.create", keyring="beta")
    assert [(entry["action"], entry["keyring"]) for entry in made] == [("keyring.create", "beta")]
    since = (await root.get("/v1/audit/entries", since="2030-01-01T01:01:00+01:00"))["items"]
    until = (await root.get("/v1/audit/entries", until="2030-01-01T00:01:00Z", limit=500))["items"]
    assert "beta" in {entry["keyring"] for entry in since}
    assert "beta" not in {entry["keyring"] for entry in until}
    assert len(since) + len(until) == len(every)
    key = (await root.get("/v1/keyrings/beta"))["active"]["id"]
    of_key = (await root.get("/v1/audit/entries", keyId=key))["items"]
    assert [entry["action"] for entry in of_key] == ["key.create"]
    assert of_key[0]["keys"][0]["id"] == key
    assert await root.get("/v1/audit/entries", limit=500) == {"items": every, "nextCursor": None}


async def test_an_answer_of_long_entries_is_no_longer_than_others(
    node: Node, root: Administrator, monkeypatch: pytest.MonkeyPatch
) -> None:
    audit = node.service.manager.audit
    for number in range(6):
        await audit.record("order.refund", number=number, text="x" * 1_000)
    await audit.sequenced()
    monkeypatch.setattr(audit_listing, "MOST_AT_ONCE", 2_500)
    first = await root.get("/v1/audit/entries", action="order.refund")
    assert [entry["details"]["number"] for entry in first["items"]] == [5, 4]
    numbers = [
        entry["details"]["number"] for entry in await root.all("/v1/audit/entries", limit=5, action="order.refund")
    ]
    assert numbers == [5, 4, 3, 2, 1, 0]
    # One that is longer than an answer is answered all the same.
    monkeypatch.setattr(audit_listing, "MOST_AT_ONCE", 10)
    assert len((await root.get("/v1/audit/entries", action="order.refund"))["items"]) == 1


async def test_times_and_words_that_cannot_be_are_refused(root: Administrator) -> None:
    for query in (
        {"since": "yesterday"},
        {"since": "2030-01-01T00:00:00"},
        {"since": "2030-01-01"},
        {"since": "1893456000"},
        {"since": "2030-02-30T00:00:00Z"},
        {"until": "0001-01-01T00:00:00+14:00"},
        {"until": "9999-12-31T23:59:59-14:00"},
        {"action": "rotate"},
        {"action": "key.rotate\x00"},
        {"keyring": "a\x00"},
        {"keyId": "-1"},
        {"keyId": "1" * 20},
        {"keyId": "9" * 19},
        {"before": "1"},
        {"actor": ""},
        {"actor": "\n"},
    ):
        assert (await root.fails("GET", "/v1/audit/entries", query=query))["code"] == "BAD_USER_INPUT", query
    assert (await root.get("/v1/audit/entries", keyId=str(2**63 - 1)))["items"] == []


async def test_the_checkpoint_covers_what_was_done_before(root: Administrator) -> None:
    await root.post("/v1/keyrings", {"name": "alpha"})
    status = await root.get("/v1/audit/status")
    made = await root.post("/v1/audit/checkpoint")
    parsed = Checkpoint.parse(Note.parse(made["checkpoint"].encode()).text)
    assert (parsed.origin, parsed.size, parsed.root.hex()) == (made["stream"], made["records"], made["root"])
    after = await root.get("/v1/audit/status")
    assert after["stream"] == made["stream"]
    assert (status["isOn"], after["waiting"], after["rejected"], after["found"]) == (True, 0, 0, None)
    assert after["checkpointRecords"] == made["records"]


async def test_entries_are_found_by_a_part_of_the_actors_name(
    node: Node, root: Administrator, monkeypatch: pytest.MonkeyPatch
) -> None:
    bob = await administrator(node, user="bob")
    await bob.post("/v1/keyrings", {"name": "alpha"})
    for name in ("beta", "gamma"):
        await root.post("/v1/keyrings", {"name": name})
    await root.post("/v1/audit/checkpoint")
    found = await root.get("/v1/audit/entries", actor="USER BOB", action="keyring.create")
    assert ([entry["keyring"] for entry in found["items"]], found["nextCursor"]) == (["alpha"], None)
    monkeypatch.setattr(audit_listing, "MOST_LOOKED", 2)
    first = await root.get("/v1/audit/entries", actor="user bob", action="keyring.create")
    assert first["items"] == []
    behind = {"actor": "user bob", "action": "keyring.create", "cursor": first["nextCursor"]}
    assert (await root.get("/v1/audit/entries", **behind))["items"] == found["items"]


@pytest.mark.parametrize("installation", ["sqlite"], indirect=True)
async def test_a_record_is_told_whole_and_its_proof_verifies_elsewhere(node: Node, root: Administrator) -> None:
    await root.post("/v1/keyrings", {"name": "alpha"})
    await root.post("/v1/audit/checkpoint")
    (entry,) = (await root.get("/v1/audit/entries", action="keyring.create", keyring="alpha"))["items"]
    at = f"/v1/audit/records/{entry['record']}"
    told = await root.get(at)
    assert (told["record"], told["kind"]) == (entry["record"], None)
    assert json.loads(told["text"])["action"] == "keyring.create"
    proof = ProofBundle.parse((await root.get(f"{at}/proof"))["proof"].encode())
    policy = await node.service.manager.audit.trust_policy()
    assert proof.extra is not None
    signed = proof.verify(proof.extra, [each.key for each in policy.signers], origin=policy.stream)
    assert signed.checkpoint.size > entry["record"] == proof.index
    assert (await root.fails("GET", "/v1/audit/records/999999"))["status"] == 404
    assert (await root.fails("GET", "/v1/audit/records/999999/proof"))["status"] == 400
    assert (await root.fails("GET", f"/v1/audit/records/{2**63}"))["status"] == 400


async def test_a_store_without_a_trail_says_so(installation: Installation) -> None:
    async with installation.node() as node:
        root = await administrator(node)
        assert (await root.get("/v1/audit/status"))["isOn"] is False
        for verb, path in (("GET", "/v1/audit/entries"), ("POST", "/v1/audit/checkpoint")):
            problem = await root.fails(verb, path)
            assert (problem["status"], problem["type"]) == (409, "/errors.md#configuration")
            assert "keystead audit begin" in problem["detail"]


def test_whoever_calls_has_a_name_that_an_entry_takes() -> None:
    def named(user: str, origin: str = "token 0123456789abcdef", tenant: str = "") -> str:
        return actor_of(Caller(Principal(user, tenant), frozenset(), origin))

    assert named("ada") == "token 0123456789abcdef, user ada"
    assert named("ada", "development", "north") == "development, user ada of north"
    long = [named("x" * 255 + end, f"issuer https://{'y' * 200}", "z" * 255) for end in "ab"]
    assert len({*long}) == 2
    assert all(len(text) == LONGEST and text.startswith("issuer https://y") for text in long)
