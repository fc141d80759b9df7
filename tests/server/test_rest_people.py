"""Locks on secrets, sessions at the console and keys that fail too often, by REST."""

from __future__ import annotations

import pytest

from keystead.access.callers import Caller, Scope
from keystead.model import Principal
from keystead.ports import SecretKind
from tests.fakes.clock import FakeClock
from tests.server.clients import VERIFY_PASSCODE, Node, lock, sealed
from tests.server.rest import administrator

pytestmark = pytest.mark.parametrize("installation", ["sqlite"], indirect=True)
"""Of what does not depend on the store."""


async def test_locks_of_ones_own_tenant_are_listed_by_pages_and_ended(node: Node) -> None:
    for user in ("bo", "a/b & c", "dee"):
        await lock(node, user)
    await lock(node, "bo", kind=SecretKind.TRANSACTION_PIN)
    await lock(node, "far", "north")
    root = await administrator(node, Scope.SECRETS_RESET)
    listed = await root.all("/v1/lockouts", limit=1)
    assert [(each["user"], each["kind"]) for each in listed] == [
        ("a/b & c", "passcode"),
        ("bo", "passcode"),
        ("bo", "transaction_pin"),
        ("dee", "passcode"),
    ]
    assert listed[0] == {
        "user": "a/b & c",
        "kind": "passcode",
        "failures": 1,
        "lockedUntil": "2030-01-01T01:00:00Z",
    }
    assert await root.post("/v1/lockouts/passcode/a%2Fb%20&%20c/release") == listed[0]
    assert await root.all("/v1/lockouts", limit=2) == listed[1:]
    again = await root.fails("POST", "/v1/lockouts/passcode/a%2Fb%20&%20c/release")
    assert (again["status"], again["code"]) == (404, "NOT_FOUND")
    assert (await root.fails("POST", "/v1/lockouts/passcode/far/release"))["status"] == 404
    assert (await root.fails("POST", "/v1/lockouts/pin/bo/release"))["status"] == 400
    assert (await root.fails("GET", "/v1/lockouts", query={"cursor": "WyJzb29uIiwiYSIsImIiXQ"}))["status"] == 400
    north = await administrator(node, Scope.SECRETS_RESET, tenant="north")
    assert (await north.post("/v1/lockouts/passcode/far/release"))["user"] == "far"


async def test_sessions_are_listed_and_ended_in_ones_own_tenant(node: Node, clock: FakeClock) -> None:
    rooms = node.service.access.sessions
    made = []
    for tenant in ("", "north", "north"):
        made.append(await rooms.begin(Caller(Principal("bob", tenant), frozenset({Scope.JOBS_READ}), "token none")))
        clock.advance(1)
    root, north = await administrator(node), await administrator(node, tenant="north")
    listed = await root.all("/v1/sessions", limit=2)
    assert [each["id"] for each in listed] == [each.row.id for each in reversed(made)]
    assert (listed[0]["user"], listed[0]["scopes"], listed[0]["endedAt"]) == ("bob", ["jobs:read"], None)
    assert "".join(made[0].text) not in str(listed)
    assert [each["id"] for each in (await north.get("/v1/sessions"))["items"]] == [made[2].row.id, made[1].row.id]
    assert (await north.fails("POST", f"/v1/sessions/{made[0].row.id}/end"))["status"] == 404
    ended = await north.post(f"/v1/sessions/{made[1].row.id}/end")
    assert ended["endedAt"] is not None
    assert await north.post(f"/v1/sessions/{made[1].row.id}/end") == ended


async def test_keys_that_fail_too_often_are_told_with_whose_fault_it_is(node: Node) -> None:
    root = await administrator(node)
    assert await root.get("/v1/problematic-keys") == {"keys": [], "isCut": False}
    bo = await node.client("bo", Scope.DEVICES_USE)
    key = await bo.key()
    for text in (*(sealed(key, "915046") for _ in range(3)), "garbage!", "garbage!"):
        await bo.done(VERIFY_PASSCODE, {"encryptedPasscode": text, "keyId": key["keyId"]})
    await node.service.devices.metrics.flush()
    (found,) = (await root.get("/v1/problematic-keys", hours=1))["keys"]
    assert (found["keyId"], found["total"], found["failures"], found["failureRate"]) == (key["keyId"], 5, 2, 40)
    assert found["reasons"] == [{"reason": "Failed to decrypt data", "fault": "caller", "count": 2}]
    assert (await root.fails("GET", "/v1/problematic-keys", query={"hours": "0"}))["status"] == 400
