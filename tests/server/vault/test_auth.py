"""Logins and tokens by Vault's protocol: statuses, texts and members as recorded of a live server."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, Final

from keystead.access.callers import Scope, scopes_of
from keystead.manager.access import Access
from keystead.ports import RoleKind
from tests.access.roles import SCOPES, approle, jwt_role
from tests.access.test_jwt_logins import pem
from tests.fakes.clock import FakeClock
from tests.fakes.issuer import FakeIssuer, rsa_key
from tests.server.clients import Client, Installation, Node
from tests.server.vault.clients import VaultClient

AUTH: Final = {
    *("accessor", "client_token", "entity_id", "lease_duration", "metadata", "mfa_requirement", "num_uses"),
    *("orphan", "policies", "renewable", "token_policies", "token_type"),
}
DATA: Final = {
    *("accessor", "creation_time", "creation_ttl", "display_name", "entity_id", "expire_time", "explicit_max_ttl"),
    *("id", "issue_time", "meta", "num_uses", "orphan", "path", "policies", "renewable", "ttl", "type"),
}
LOGIN: Final = "auth/approle/login"


async def login_of(room: Access, *, tenant: str = "", **rules: Any) -> dict[str, str]:
    """Make an AppRole, and return what a program of it sends."""
    role = await room.roles.create("orders", SCOPES, approle(**rules), tenant=tenant)
    secret = await room.roles.create_secret_id("orders", tenant=tenant)
    return {"role_id": role.id, "secret_id": "".join(secret.text)}


async def test_a_program_logs_in_is_told_what_it_has_renews_it_and_gives_it_up(
    node: Node, room: Access, nobody: VaultClient, clock: FakeClock
) -> None:
    given = await login_of(room, token_max_ttl_s=14_400)
    auth = (await nobody.gets("POST", LOGIN, given))["auth"]
    assert set(auth) == AUTH
    assert auth["policies"] == auth["token_policies"] == ["transit:encrypt:orders-*"]
    assert (auth["lease_duration"], auth["renewable"], auth["token_type"]) == (3600, True, "service")
    assert (auth["metadata"], auth["num_uses"], auth["orphan"]) == ({"role_name": "orders"}, 0, True)
    app = VaultClient(node.app, auth["client_token"])
    clock.advance(600)
    data = (await app.gets("GET", "auth/token/lookup-self"))["data"]
    assert set(data) == DATA
    assert (data["id"], data["accessor"]) == (auth["client_token"], auth["accessor"])
    assert (data["creation_ttl"], data["ttl"], data["renewable"]) == (3600, 3000, True)
    assert (data["display_name"], data["path"]) == ("approle", LOGIN)
    renewed = await app.gets("POST", "auth/token/renew-self", {})
    assert (set(renewed["auth"]), renewed["auth"]["lease_duration"], renewed["warnings"]) == (AUTH, 3600, None)
    for increment, ttl_s in (("30m", 1800), (7200, 7200), ("7200", 7200), ("1h30m", 5400), (0, 3600), ("", 3600)):
        renewed = await app.gets("POST", "auth/token/renew-self", {"increment": increment})
        assert renewed["auth"]["lease_duration"] == ttl_s
    cut = await app.gets("PUT", "auth/token/renew-self", {"increment": "9h"})
    assert cut["auth"]["lease_duration"] == 13_800
    assert cut["warnings"] == ['TTL of "9h" exceeded the effective max_ttl of "3h50m"; TTL value is capped accordingly']
    assert (await app.send("POST", "auth/token/revoke-self")).status_code == 204
    for method, path in (("GET", "lookup-self"), ("POST", "renew-self"), ("POST", "revoke-self")):
        assert await app.fails(403, method, f"auth/token/{path}") == ["permission denied"]


async def test_what_is_no_duration_is_refused(node: Node, room: Access, nobody: VaultClient) -> None:
    auth = (await nobody.gets("POST", LOGIN, await login_of(room, token_max_ttl_s=7200)))["auth"]
    app = VaultClient(node.app, auth["client_token"])
    head = 'Field validation failed: error converting input for field "increment": time: invalid duration '
    assert await app.fails(400, "POST", "auth/token/renew-self", {"increment": "junk"}) == [f'{head}"junk"']
    bad_ones: list[Any] = [-1, True, 1.5, [], "1x", "-5s", "٣", "1e9", 10**30]
    for bad in bad_ones:
        (told,) = await app.fails(400, "POST", "auth/token/renew-self", {"increment": bad})
        assert told.startswith(head)


async def test_a_token_that_ends_is_denied_and_one_that_is_not_renewable_says_so(
    node: Node, room: Access, nobody: VaultClient, clock: FakeClock
) -> None:
    auth = (await nobody.gets("POST", LOGIN, await login_of(room, token_ttl_s=2)))["auth"]
    assert auth["renewable"] is False
    app = VaultClient(node.app, auth["client_token"])
    assert (await app.gets("GET", "auth/token/lookup-self"))["data"]["renewable"] is False
    assert await app.fails(400, "POST", "auth/token/renew-self", {}) == ["lease is not renewable"]
    clock.advance(2)
    assert await app.fails(403, "GET", "auth/token/lookup-self") == ["permission denied"]


async def test_a_token_for_some_uses_tells_how_many_are_left(node: Node, room: Access, nobody: VaultClient) -> None:
    auth = (await nobody.gets("POST", LOGIN, await login_of(room, token_uses=2)))["auth"]
    assert auth["num_uses"] == 2
    app = VaultClient(node.app, auth["client_token"])
    left = [(await app.gets("GET", "auth/token/lookup-self"))["data"]["num_uses"] for _ in range(2)]
    assert left == [1, -1]
    assert await app.fails(403, "GET", "auth/token/lookup-self") == ["permission denied"]


async def test_a_token_made_by_hand_is_told_and_given_up_too(node: Node) -> None:
    made = await node.service.tokens.create(
        "billing", scopes_of(["transit:sign:*"]), tenant="north", label="the app", lifetime=timedelta(hours=1)
    )
    app = VaultClient(node.app, "".join(made.text))
    data = (await app.gets("GET", "auth/token/lookup-self"))["data"]
    assert set(data) == {*DATA, "namespace_path"}
    assert (data["namespace_path"], data["path"], data["meta"]) == ("north/", "auth/token/create", None)
    assert (data["display_name"], data["policies"], data["ttl"]) == ("the app", ["transit:sign:*"], 3600)
    assert await app.fails(400, "POST", "auth/token/renew-self") == ["lease is not renewable"]
    assert "keystead token create" in (await app.fails(400, "POST", "auth/token/create", {}))[0]
    assert (await app.send("POST", "auth/token/revoke-self")).status_code == 204


async def test_a_login_that_lacks_something_says_what(room: Access, nobody: VaultClient) -> None:
    given = await login_of(room, secret_id_uses=1)
    refused = ["invalid role or secret ID"]
    for body, told in [
        ({"role_id": given["role_id"]}, ["missing secret_id"]),
        ({**given, "secret_id": ""}, ["missing secret_id"]),
        ({"secret_id": "x"}, ["missing role_id"]),
        ({}, ["missing role_id"]),
        (None, ["missing role_id"]),
        ({**given, "secret_id": "wrong"}, refused),
        ({**given, "role_id": "wrong"}, refused),
    ]:
        assert await nobody.fails(400, "POST", LOGIN, body) == told
    (refusal,) = await nobody.fails(400, "POST", LOGIN, {**given, "secret_id": 17})
    assert 'the field "secret_id" is no text' in refusal
    await nobody.gets("PUT", LOGIN, given, headers={"X-Vault-Token": "of no matter"})
    assert await nobody.fails(400, "POST", LOGIN, given) == refused


async def test_a_login_names_the_tenant_of_its_role_or_none(room: Access, nobody: VaultClient) -> None:
    given = await login_of(room, tenant="north", secret_id_uses=2)
    policy = ["1 error occurred:\n\t* permission denied\n\n"]
    for named in ("south", "root"):
        assert await nobody.fails(403, "POST", LOGIN, given, headers={"X-Vault-Namespace": named}) == policy
    await nobody.gets("POST", LOGIN, given, headers={"X-Vault-Namespace": "north/"})
    await nobody.gets("POST", LOGIN, given)


async def test_a_jwt_logs_in(
    node: Node, room: Access, nobody: VaultClient, provider: FakeIssuer, clock: FakeClock
) -> None:
    await room.roles.create("ci", SCOPES, jwt_role(public_keys=(pem(rsa_key()),)), tenant="north")
    given = {"role": "ci", "jwt": provider.token(rsa_key(), sub="svc-a")}
    headers = {"X-Vault-Namespace": "north"}
    auth = (await nobody.gets("POST", "auth/jwt/login", given, headers=headers))["auth"]
    assert (set(auth), auth["metadata"]) == (AUTH, {"role": "ci"})
    data = (await VaultClient(node.app, auth["client_token"]).gets("GET", "auth/token/lookup-self"))["data"]
    assert (data["display_name"], data["path"], data["meta"]) == ("jwt-svc-a", "auth/jwt/login", {"role": "ci"})
    assert data["namespace_path"] == "north/"
    for body, told in [
        ({"role": "ci"}, "missing token"),
        ({"role": "ci", "jwt": ""}, "missing token"),
        ({"jwt": "x"}, "missing role"),
        (given, 'role "ci" could not be found'),
    ]:
        assert await nobody.fails(400, "POST", "auth/jwt/login", body) == [told]
    wrong = {**given, "jwt": provider.token(rsa_key(), aud="other")}
    told = "invalid audience (aud) claim: audience claim does not match any expected audience"
    assert await nobody.fails(400, "POST", "auth/jwt/login", wrong, headers=headers) == [
        f"error validating token: {told}"
    ]


async def test_a_deleted_roles_token_is_denied_on_every_node_within_five_seconds(
    installation: Installation, node: Node, room: Access, nobody: VaultClient, clock: FakeClock
) -> None:
    async with installation.node() as other:
        auth = (await nobody.gets("POST", LOGIN, await login_of(room)))["auth"]
        there = VaultClient(other.app, auth["client_token"])
        await there.gets("GET", "auth/token/lookup-self")
        await room.roles.delete(RoleKind.APPROLE, "orders")
        clock.advance(5)
        assert await there.fails(403, "GET", "auth/token/lookup-self") == ["permission denied"]


async def test_a_token_with_scopes_of_the_engine_alone_gets_nothing_of_the_service(node: Node, room: Access) -> None:
    made = await room.tokens.create("app", scopes_of(["transit:*:*"]))
    client = Client(node.app, "".join(made.text))
    answer = await client.ask("{ getEncryptionMetricsSummary }")
    assert answer["errors"][0]["extensions"]["code"] == "FORBIDDEN"
    assert (await client.get("/v1/tokens")).status_code == 403
    assert Scope.TOKENS_WRITE not in (await room.tokens.authenticate("".join(made.text))).scopes
