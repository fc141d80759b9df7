"""What takes a second person's approval, by every way into the service."""

from __future__ import annotations

import pytest

from keystead.access.callers import Scope
from keystead.access.transit_scopes import transit_scope
from tests.server.clients import Node
from tests.server.rest import Administrator, administrator
from tests.server.vault.clients import VaultClient

FORGET = "mutation ($user: String!) { forgetUser(userId: $user) }"


@pytest.fixture
async def ada(node: Node) -> Administrator:
    """Who asks."""
    return await administrator(node, user="ada")


@pytest.fixture
async def bob(node: Node) -> Administrator:
    """Who approves."""
    return await administrator(node, Scope.APPROVALS_WRITE, user="bob")


async def test_a_destroy_waits_and_is_done_when_it_is_asked_for_again(
    node: Node, ada: Administrator, bob: Administrator
) -> None:
    await node.asks_for_two()
    await ada.post("/v1/keyrings/default/rotate", {"promote": "now"})
    how = {"withoutSources": True}
    problem = await ada.fails("POST", "/v1/keys/default/1/destroy", how)
    assert (problem["status"], problem["code"]) == (403, "APPROVAL_REQUIRED")
    assert problem["type"] == "/errors.md#approval_required"
    asked = problem["approvalId"]
    assert asked in problem["detail"]
    [told] = await bob.all("/v1/approvals", limit=10)
    assert told == await bob.get(f"/v1/approvals/{asked}")
    assert (told["standing"], told["act"], told["target"]) == ("waiting", "key.destroy", "default/1")
    assert told["details"] == {"wait_s": 30 * 86_400, "without_sources": True}
    own = await ada.fails("POST", f"/v1/approvals/{asked}/approve")
    assert (own["status"], own["code"]) == (403, "FORBIDDEN")
    approved = await bob.post(f"/v1/approvals/{asked}/approve")
    assert (approved["standing"], approved["decidedBy"], approved["askedBy"]) == ("approved", "bob", "ada")
    again = await bob.fails("POST", f"/v1/approvals/{asked}/refuse")
    assert (again["status"], again["code"]) == (409, "KEY_STATE")
    other = await ada.fails("POST", "/v1/keys/default/1/destroy", {**how, "waitSeconds": 7 * 86_400})
    assert other["approvalId"] != asked
    assert (await ada.post("/v1/keys/default/1/destroy", how))["state"] == "pending-destroy"
    assert (await bob.get(f"/v1/approvals/{asked}"))["standing"] == "done"


async def test_a_back_end_that_acts_for_others_is_itself(node: Node, ada: Administrator, bob: Administrator) -> None:
    backend = await administrator(node, Scope.DEVICES_ADMIN, Scope.ACT_AS, Scope.APPROVALS_WRITE, user="backend")
    await node.asks_for_two()
    as_user = {"X-Keystead-User": "dora"}
    answer = await backend.send("POST", "/v1/users/carol/forget", headers=as_user)
    asked = answer.json()["approvalId"]
    assert (await bob.get(f"/v1/approvals/{asked}"))["askedBy"] == "backend"
    assert (await backend.send("POST", f"/v1/approvals/{asked}/approve", headers=as_user)).status_code == 403
    await bob.post(f"/v1/approvals/{asked}/approve")
    assert (await backend.send("POST", "/v1/users/carol/forget", headers=as_user)).status_code == 200


async def test_who_is_of_a_tenant_approves_what_is_of_it(node: Node, bob: Administrator) -> None:
    asks = await administrator(node, Scope.DEVICES_ADMIN, user="nina", tenant="north")
    north, south = [
        await administrator(node, Scope.APPROVALS_WRITE, user=f"of-{tenant}", tenant=tenant)
        for tenant in ("north", "south")
    ]
    await node.asks_for_two()
    asked = (await asks.fails("POST", "/v1/users/carol/forget"))["approvalId"]
    assert (await south.fails("POST", f"/v1/approvals/{asked}/approve"))["status"] == 404
    assert await south.all("/v1/approvals", limit=10) == []
    assert [each["id"] for each in await north.all("/v1/approvals", limit=10)] == [asked]
    await north.post(f"/v1/approvals/{asked}/approve")
    assert (await asks.send("POST", "/v1/users/carol/forget")).status_code == 200


async def test_roles_and_tokens_wait_and_tokens_that_can_do_no_harm_do_not(
    node: Node, ada: Administrator, bob: Administrator
) -> None:
    await node.asks_for_two()
    role = {"name": "app", "scopes": ["devices:use"], "tokenTtlSeconds": 60}
    role |= {"secretIdTtlSeconds": 60, "secretIdUses": 1}
    asked = (await ada.fails("POST", "/v1/admin/approle/roles", role))["approvalId"]
    await bob.post(f"/v1/approvals/{asked}/approve")
    await ada.post("/v1/admin/approle/roles", role)
    assert (await ada.fails("DELETE", "/v1/admin/approle/roles/app"))["code"] == "APPROVAL_REQUIRED"
    await ada.post("/v1/tokens", {"user": "carol", "scopes": ["devices:use", "transit:encrypt:orders"]})
    for scopes in (["tokens:write"], ["approvals:write"], ["transit:delete:orders"], ["transit:*:*"]):
        problem = await ada.fails("POST", "/v1/tokens", {"user": "carol", "scopes": scopes})
        assert problem["code"] == "APPROVAL_REQUIRED"


async def test_a_client_of_vault_is_told_what_it_waits_for(node: Node, bob: Administrator) -> None:
    vault = VaultClient(node.app, await node.token("ada", transit_scope("transit:*:*")))
    await node.asks_for_two()
    await vault.gets("POST", "transit/keys/orders")
    await vault.gets("POST", "transit/keys/orders/config", {"deletion_allowed": True})
    [told] = await vault.fails(403, "DELETE", "transit/keys/orders")
    [asked] = [each["id"] for each in await bob.all("/v1/approvals", limit=10)]
    assert asked in told
    await bob.post(f"/v1/approvals/{asked}/approve")
    assert (await vault.send("DELETE", "transit/keys/orders")).status_code == 204


async def test_graphql_is_told_by_its_code(node: Node, bob: Administrator) -> None:
    admin = await node.client("ada", Scope.DEVICES_ADMIN)
    await node.asks_for_two()
    answer = await admin.ask(FORGET, {"user": "dora"})
    assert answer["errors"][0]["extensions"]["code"] == "APPROVAL_REQUIRED"
    [asked] = [each["id"] for each in await bob.all("/v1/approvals", limit=10)]
    await bob.post(f"/v1/approvals/{asked}/approve")
    assert (await admin.ask(FORGET, {"user": "dora"}))["data"] == {"forgetUser": True}
