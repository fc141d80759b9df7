"""Nothing is administered that no scope allows, and nothing of another tenant."""

from __future__ import annotations

import pytest
from fastapi.routing import iter_route_contexts

from keystead.access.callers import EVERY_SCOPE, Scope
from keystead.server.rest.door import AdminRoute, Needs
from tests.server.clients import GENERATE, Client, Node
from tests.server.rest import OPERATIONS, Administrator, administrator, routes

on_any_store = pytest.mark.parametrize("installation", ["sqlite"], indirect=True)
"""Of what does not depend on the store."""


def operations_of(node: Node) -> set[str]:
    """Return the operations that the application itself has below ``/v1``."""
    found = set()
    for route in iter_route_contexts(node.app.routes):
        if (route.path or "").startswith("/v1"):
            assert isinstance(route.original_route, AdminRoute)
            found.add(str(route.operation_id))
    return found


@on_any_store
async def test_every_route_has_a_row(node: Node) -> None:
    assert operations_of(node) == set(OPERATIONS)
    for route in routes():
        operation = OPERATIONS[str(route.operation_id)]
        assert route.methods == {operation.method}
        assert route.path_regex.match(operation.path)


@on_any_store
async def test_an_operation_takes_its_scope_and_no_other(node: Node) -> None:
    for scope in sorted(EVERY_SCOPE):
        root = await administrator(node, scope)
        for name, operation in OPERATIONS.items():
            answer = await root.does(operation)
            assert (answer.status_code == 403) == (scope is not operation.scope), f"{name} by {scope}: {answer.text}"
            assert answer.status_code != 401


def test_a_route_without_a_scope_cannot_be_made() -> None:
    async def endpoint() -> None: ...

    with pytest.raises(TypeError, match="exactly one scope"):
        AdminRoute("/v1/open", endpoint)


@on_any_store
async def test_nobody_is_answered_without_a_good_token(node: Node) -> None:
    good = await node.token("root", *EVERY_SCOPE)
    nobody = Administrator(node.app)
    for operation in OPERATIONS.values():
        for header in (None, "", "Bearer", f"Basic {good}", f"Bearer {good}x"):
            headers = {} if header is None else {"Authorization": header}
            # Whatever is sent besides: who it is comes first.
            answer = await nobody.send(operation.method, operation.path, content=b"{", headers=headers)
            assert answer.status_code == 401
            assert answer.headers["www-authenticate"] == "Bearer"
            assert answer.json() == {
                "type": "/errors.md#unauthenticated",
                "title": "Unauthenticated",
                "status": 401,
                "detail": "no valid token was sent",
                "code": "UNAUTHENTICATED",
            }


async def test_who_is_of_a_tenant_administers_nothing_of_the_whole_store(node: Node) -> None:
    north = await administrator(node, tenant="north")
    for name, operation in OPERATIONS.items():
        answer = await north.does(operation)
        assert (answer.status_code == 403) == operation.is_of_store, name


async def test_tokens_of_another_tenant_are_not_there(node: Node) -> None:
    root, north = await administrator(node), await administrator(node, tenant="north")
    south = await root.post("/v1/tokens", {"user": "ada", "tenant": "south", "scopes": ["devices:use"]})
    for verb, path in (("GET", ""), ("POST", "/revoke")):
        problem = await north.fails(verb, f"/v1/tokens/{south['id']}{path}")
        assert problem["code"] == "NOT_FOUND"
    assert (await north.fails("GET", "/v1/tokens", query={"tenant": "south"}))["code"] == "FORBIDDEN"
    refused = await north.fails("POST", "/v1/tokens", {"user": "a", "tenant": "south", "scopes": ["devices:use"]})
    assert refused["code"] == "FORBIDDEN"
    made = await north.post("/v1/tokens", {"user": "a", "scopes": ["devices:use", "tokens:write"]})
    assert made["tenant"] == "north"
    assert {token["tenant"] for token in (await north.get("/v1/tokens"))["items"]} == {"north"}
    assert {token["tenant"] for token in (await root.get("/v1/tokens"))["items"]} == {"", "north", "south"}
    assert (await root.get(f"/v1/tokens/{south['id']}"))["revokedAt"] is None


async def test_devices_and_users_of_another_tenant_are_not_there(node: Node) -> None:
    ada = await node.client("ada", tenant="south")
    key = await ada.key()
    for root in (await administrator(node), await administrator(node, tenant="north")):
        assert (await root.get("/v1/devices"))["items"] == []
        for verb, path in (("GET", "keys"), ("POST", "revoke"), ("POST", "release")):
            assert (await root.fails(verb, f"/v1/devices/device-123/{path}"))["code"] == "NOT_FOUND"
        assert await root.post("/v1/users/ada/forget") == {"devices": 0, "clientKeys": 0, "secrets": 0}
    assert await ada.key() == key


async def test_a_token_that_administers_by_rest_gives_no_other_scope_away(node: Node) -> None:
    """Whoever may write tokens may have every scope; nobody else makes or ends one."""
    others = await administrator(node, *(EVERY_SCOPE - {Scope.TOKENS_WRITE}))
    refused = await others.fails("POST", "/v1/tokens", {"user": "a", "scopes": ["devices:use"]})
    assert refused["detail"] == "this takes the scope tokens:write"
    writer = await administrator(node, Scope.TOKENS_WRITE)
    made = await writer.post("/v1/tokens", {"user": "a", "scopes": ["keyrings:write"]})
    assert made["scopes"] == ["keyrings:write"]


async def test_a_back_end_acts_for_its_users(node: Node) -> None:
    backend = await administrator(node, Scope.ACT_AS, Scope.DEVICES_ADMIN)
    assert (await backend.send("GET", "/v1/devices", headers={"X-Keystead-User": "ada"})).status_code == 200
    other = await administrator(node, Scope.DEVICES_ADMIN)
    assert (await other.send("GET", "/v1/devices", headers={"X-Keystead-User": "ada"})).status_code == 403


async def test_in_development_everybody_administers_from_this_machine(development: Client) -> None:
    app = development.app
    assert not isinstance(app, str)
    anybody = Administrator(app)
    assert (await anybody.get("/v1/keyrings"))["items"][0]["name"] == "default"
    problem = await anybody.fails("POST", "/v1/maintain", headers={"Content-Type": "text/plain"})
    assert (problem["status"], problem["code"]) == (403, "FORBIDDEN")
    answer = await anybody.send("POST", "/v1/keyrings/default/rotate", content=b"{}")
    assert answer.status_code == 200
    assert (await anybody.fails("GET", "/v1/keyrings", headers={"Origin": "https://example.com"}))["status"] == 403
    assert (await anybody.fails("GET", "/v1/keyrings", headers={"Host": "example.com"}))["status"] == 403
    assert (await development.ask(GENERATE, {"input": {"deviceId": "a"}})).get("errors") is None


def test_what_a_route_needs_is_one_dependency() -> None:
    assert all(isinstance(route.needs, Needs) for route in routes())
