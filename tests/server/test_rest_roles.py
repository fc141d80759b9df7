"""Roles by the administration's REST."""

from __future__ import annotations

from typing import Any, Final

import pytest

from keystead.access.callers import Scope
from tests.fakes.clock import FakeClock
from tests.server.clients import Node
from tests.server.rest import Administrator, administrator
from tests.server.vault.clients import VaultClient

APPROLES: Final = "/v1/admin/approle/roles"
JWT_ROLES: Final = "/v1/admin/jwt/roles"
ORDERS: Final[dict[str, Any]] = {
    "name": "orders",
    "scopes": ["transit:encrypt:orders-*", "devices:use"],
    "tokenTtlSeconds": 60,
    "secretIdTtlSeconds": 3600,
    "secretIdUses": 2,
}
CI: Final[dict[str, Any]] = {
    "name": "ci",
    "scopes": ["transit:sign:release"],
    "tokenTtlSeconds": 60,
    "tokenUses": 3,
    "audiences": ["keystead"],
    "issuer": "https://idp.example",
    "boundClaims": {"env": "prod", "ref": ["main", "next"], "level": 2, "protected": True},
}


@pytest.fixture
async def root(node: Node) -> Administrator:
    """Whoever administers the whole store."""
    return await administrator(node)


async def test_a_program_logs_in_by_what_the_administration_made(node: Node, root: Administrator) -> None:
    answer = await root.send("POST", APPROLES, ORDERS)
    made = answer.json()
    assert (answer.status_code, answer.headers["location"]) == (201, f"{APPROLES}/orders")
    assert made.pop("createdAt") is not None
    role_id = made.pop("roleId")
    extra = {"tenant": "", "audit": "counted", "tokenMaxTtlSeconds": None, "tokenUses": None}
    assert made == {**ORDERS, **extra, "scopes": sorted(ORDERS["scopes"])}
    secret = await root.post(f"{APPROLES}/orders/secret-ids")
    text = secret.pop("secretId")
    assert text not in (await root.send("GET", f"{APPROLES}/orders/secret-ids")).text
    nobody = VaultClient(node.app)
    auth = (await nobody.gets("POST", "auth/approle/login", {"role_id": role_id, "secret_id": text}))["auth"]
    assert auth["lease_duration"] == 60
    (listed,) = await root.all(f"{APPROLES}/orders/secret-ids", limit=1)
    assert listed == {**secret, "used": 1}
    assert (await root.send("DELETE", f"{APPROLES}/orders/secret-ids/{secret['id']}")).status_code == 204
    deleted = await root.send("DELETE", f"{APPROLES}/orders")
    assert (deleted.status_code, deleted.json()) == (200, {"revokedTokens": 1})
    assert (await root.fails("GET", f"{APPROLES}/orders"))["code"] == "NOT_FOUND"
    app = VaultClient(node.app, auth["client_token"])
    await app.fails(403, "GET", "auth/token/lookup-self")


async def test_a_role_that_jwts_show_is_told_as_it_was_made(root: Administrator) -> None:
    made = await root.post(JWT_ROLES, CI)
    assert await root.get(f"{JWT_ROLES}/ci") == made
    claims = {"env": ["prod"], "ref": ["main", "next"], "level": [2], "protected": [True]}
    assert {name: made[name] for name in CI} == {**CI, "boundClaims": claims}
    assert (made["userClaim"], made["leewaySeconds"], made["publicKeys"]) == ("sub", 30, [])
    assert (await root.fails("POST", JWT_ROLES, CI))["code"] == "CONFLICT"
    assert (await root.send("DELETE", f"{JWT_ROLES}/ci")).json() == {"revokedTokens": 0}


async def test_roles_of_another_tenant_are_not_there(node: Node, root: Administrator) -> None:
    north = await administrator(node, tenant="north")
    await root.post(APPROLES, ORDERS)
    mine = await north.post(APPROLES, ORDERS)
    assert mine["tenant"] == "north"
    assert await north.all(APPROLES, limit=10) == [mine]
    assert await root.get(f"{APPROLES}/orders", tenant="north") == mine
    assert (await root.get(f"{APPROLES}/orders"))["tenant"] == ""
    assert len(await root.all(APPROLES, limit=1)) == 2
    for method, path in [("GET", ""), ("DELETE", ""), ("GET", "/secret-ids"), ("POST", "/secret-ids")]:
        problem = await north.fails(method, f"{APPROLES}/orders{path}", query={"tenant": "south"})
        assert problem["code"] == "FORBIDDEN"
    assert (await north.fails("POST", APPROLES, {**ORDERS, "name": "x", "tenant": "south"}))["code"] == "FORBIDDEN"
    await north.send("DELETE", f"{APPROLES}/orders")
    assert len(await root.all(APPROLES, limit=10)) == 1


async def test_roles_are_listed_the_newest_first(root: Administrator, clock: FakeClock) -> None:
    for name in ("a", "b", "c"):
        await root.post(APPROLES, {**ORDERS, "name": name})
        clock.advance(1)
    assert [each["name"] for each in await root.all(APPROLES, limit=2)] == ["c", "b", "a"]
    assert await root.all(JWT_ROLES, limit=2) == []


@pytest.mark.parametrize("installation", ["sqlite"], indirect=True)
@pytest.mark.parametrize(
    ("path", "given", "told"),
    [
        (APPROLES, {**ORDERS, "scopes": ["transit:encrypt:a b"]}, "transit:<operation>:<key glob>"),
        (APPROLES, {**ORDERS, "scopes": ["transit:export:*"]}, "no operation 'export'"),
        (APPROLES, {**ORDERS, "scopes": []}, "scopes"),
        (APPROLES, {**ORDERS, "name": "a/b"}, "name"),
        (APPROLES, {**ORDERS, "secretIdUses": 0}, "secretIdUses"),
        (APPROLES, {**ORDERS, "secretIdUses": "2"}, "no whole number"),
        (APPROLES, {**ORDERS, "tokenMaxTtlSeconds": 10}, "no shorter"),
        (APPROLES, {key: value for key, value in ORDERS.items() if key != "tokenTtlSeconds"}, "tokenTtlSeconds"),
        (APPROLES, {**ORDERS, "secret": "x"}, "not known"),
        (JWT_ROLES, {**CI, "audiences": []}, "audiences"),
        (JWT_ROLES, {**CI, "issuer": "http://idp.example"}, "https://"),
        (JWT_ROLES, {**CI, "publicKeys": ["junk"]}, "BEGIN PUBLIC KEY"),
        (JWT_ROLES, {**CI, "boundClaims": {"env": []}}, "'env' is bound to"),
    ],
)
async def test_what_cannot_be_a_role_is_refused(
    root: Administrator, path: str, given: dict[str, Any], told: str
) -> None:
    problem = await root.fails("POST", path, given)
    assert problem["status"] == 400
    assert told in problem["detail"]
    assert await root.all(path, limit=10) == []


async def test_a_token_may_have_scopes_of_both_kinds(node: Node, root: Administrator) -> None:
    given = {"user": "app", "scopes": ["transit:encrypt:*", "devices:use"]}
    made = await root.post("/v1/tokens", given)
    assert made["scopes"] == ["devices:use", "transit:encrypt:*"]
    caller = await node.service.tokens.authenticate(made["token"])
    assert caller.scopes == {Scope.DEVICES_USE}
    assert caller.may_transit("encrypt", "any")
    problem = await root.fails("POST", "/v1/tokens", {**given, "scopes": ["transit:encrypt"]})
    assert "transit:<operation>:<key glob>" in problem["detail"]
