"""Keyrings and data keys over their lives, by REST."""

from __future__ import annotations

from datetime import timedelta
from typing import Any
from urllib.parse import quote

import pytest

from keystead.manager import admin
from keystead.model import DataKeyState
from keystead.server.rest import shapes
from tests.fakes.clock import FakeClock
from tests.server.clients import Node
from tests.server.rest import Administrator, administrator

DAY = timedelta(days=1)


@pytest.fixture
async def root(node: Node) -> Administrator:
    """Who may do everything."""
    return await administrator(node)


async def test_a_keyring_is_made_once_and_told_without_its_keys(node: Node, root: Administrator) -> None:
    answer = await root.send("POST", "/v1/keyrings", {"name": "orders/north?", "isForFiles": True})
    assert (answer.status_code, answer.headers["location"]) == (201, "/v1/keyrings/orders%2Fnorth%3F")
    key = answer.json()
    assert (key["keyring"], key["version"], key["state"]) == ("orders/north?", 1, "active")
    shown = await root.get(answer.headers["location"])
    assert shown["active"] == key
    assert (shown["purpose"], shown["algorithm"], shown["states"]) == ("encrypt", "AES-256-GCM-STREAM", {"active": 1})
    assert await root.get(f"/v1/keys/{key['id']}") == await root.get("/v1/keys/orders%2Fnorth%3F/1") == key
    again = await root.fails("POST", "/v1/keyrings", {"name": "orders/north?"})
    assert (again["status"], again["code"]) == (409, "KEY_STATE")
    assert "exists" in again["detail"]
    async with node.service.reading() as work:
        row = await work.find_key(int(key["id"]))
    assert row is not None
    assert row.wrapped_key is not None
    assert row.wrapped_key.hex() not in answer.text
    assert not {"wrappedKey", "key"} & set(key)


async def test_a_version_goes_through_its_life(node: Node, root: Administrator, clock: FakeClock) -> None:
    first = (await root.get("/v1/keyrings/default"))["active"]
    blob = node.service.manager.local_encrypt(b"before")
    second = await root.post("/v1/keyrings/default/rotate")
    assert (second["version"], second["state"]) == (2, "active")
    assert await root.post("/v1/keyrings/default/rotate", {"minAgeSeconds": 3_600}) == second
    assert (await root.fails("POST", f"/v1/keys/{second['id']}/disable"))["code"] == "KEY_STATE"
    states = []
    for word in ("disable", "enable", "disable"):
        states.append((await root.post(f"/v1/keys/{first['id']}/{word}"))["state"])
    assert states == ["disabled", "decrypt-only", "disabled"]
    problem = await root.fails("POST", "/v1/keys/default/1/destroy")
    assert (problem["code"], problem["type"]) == ("KEY_STATE", "/errors.md#key_state")
    assert "no data source" in problem["detail"]
    given = {"withoutSources": True, "waitSeconds": 7 * 86_400}
    pending = await root.post("/v1/keys/default/1/destroy", given)
    assert pending["state"] == "pending-destroy"
    assert [key["id"] for key in (await root.get("/v1/status"))["pendingDestroy"]] == [first["id"]]
    assert (await root.post("/v1/keys/default/1/cancel-destroy"))["state"] == "disabled"
    await root.post("/v1/keys/default/1/enable")
    assert node.service.manager.local_decrypt(blob) == b"before"


async def test_a_name_with_slashes_is_told_from_what_is_done(root: Administrator) -> None:
    for name in ("a/b", "a/1", "1/rotate", "keys/1/disable", "rotate"):
        path = f"/v1/keyrings/{quote(name, safe='')}"
        await root.post("/v1/keyrings", {"name": name})
        assert (await root.post(f"{path}/rotate"))["keyring"] == name
        assert [key["version"] for key in await root.all("/v1/keys", limit=1, keyring=name)] == [1, 2]
        assert (await root.post(f"/v1/keys/{quote(name, safe='')}/1/disable"))["state"] == "disabled"
        if not name.endswith("/rotate"):
            assert (await root.get(path))["name"] == name


async def test_a_destroy_waits_as_long_as_one_may(root: Administrator) -> None:
    for wait in (7 * 86_400 - 1, 30 * 86_400 + 1, "604800", 604_800.5, True, None):
        given = {"withoutSources": True, "waitSeconds": wait}
        assert (await root.fails("POST", "/v1/keys/default/1/destroy", given))["status"] == 400


async def test_keyrings_of_the_stores_own_are_protected(root: Administrator) -> None:
    assert (await root.fails("POST", "/v1/keyrings", {"name": "keystead.mine"}))["code"] == "BAD_USER_INPUT"
    listed = [each["name"] for each in await root.all("/v1/keyrings", limit=3)]
    assert {"default", "keystead.wrap", "keystead.tokens"} <= set(listed)
    for name in listed:
        if name.startswith("keystead."):
            for word in ("rotate", "abandon-index-rotation", "rotate-index"):
                assert (await root.fails("POST", f"/v1/keyrings/{name}/{word}"))["code"] == "KEY_STATE"
            problem = await root.fails("POST", f"/v1/keys/{name}/1/destroy", {"withoutSources": True})
            assert problem["code"] == "KEY_STATE"


async def test_rewrapping_moves_every_key_to_a_new_wrap_key(root: Administrator) -> None:
    before = await root.get("/v1/keys/default/1")
    moved = await root.post("/v1/rewrap")
    assert moved["dataKeys"] >= 1
    after = await root.get("/v1/keys/default/1")
    assert after["wrappedBy"] != before["wrappedBy"]
    assert (await root.post("/v1/rewrap", {"keepWrapKey": True}))["dataKeys"] == 0


async def test_the_states_of_keys_choose_among_them(root: Administrator) -> None:
    await root.post("/v1/keyrings/default/rotate")
    await root.post("/v1/keys/default/1/disable")
    chosen = await root.all("/v1/keys", limit=2, state=["disabled", "decrypt-only"])
    assert [(key["keyring"], key["version"]) for key in chosen] == [("default", 1)]
    chosen = await root.all("/v1/keys", limit=2, keyring="default", state="active")
    assert [key["version"] for key in chosen] == [2]
    assert (await root.fails("GET", "/v1/keys", query={"state": "old"}))["status"] == 400


async def test_lists_are_the_same_however_they_are_paged(root: Administrator) -> None:
    for name in ("alpha", "zeta", "Ω mega"):
        await root.post("/v1/keyrings", {"name": name})
    for _ in range(3):
        await root.post("/v1/keyrings/zeta/rotate")
    keyrings = (await root.get("/v1/keyrings", limit=500))["items"]
    assert {"alpha", "zeta", "Ω mega"} < {each["name"] for each in keyrings}
    total = (await root.get("/v1/status"))["keyrings"] + 3
    for limit in (1, 2, 3, 100):
        assert await root.all("/v1/keyrings", limit=limit) == keyrings
        versions = await root.all("/v1/keys", limit=limit, keyring="zeta")
        assert [key["version"] for key in versions] == [1, 2, 3, 4]
        ids = [key["id"] for key in await root.all("/v1/keys", limit=limit)]
        assert sorted(set(ids), key=int) == ids
        assert len(ids) == total


async def test_a_cursor_is_one_of_the_list_it_is_sent_to(root: Administrator) -> None:
    name = shapes.cursor_of("default")
    for cursor in ("AAAA", "bm90IGpzb24", shapes.cursor_of(-1), shapes.cursor_of(2**63), name, "", "=", "a" * 3_000):
        problem = await root.fails("GET", "/v1/keys", query={"cursor": cursor})
        assert problem["status"] == 400
    for cursor in (shapes.cursor_of(1), shapes.cursor_of("a\x00"), shapes.cursor_of("a", "b")):
        problem = await root.fails("GET", "/v1/keyrings", query={"cursor": cursor})
        assert problem["detail"] == "this is no cursor of this list; begin without one"
    assert (await root.send("GET", "/v1/keyrings", query={"cursor": name})).status_code == 200


async def test_an_answer_has_a_bounded_number_of_items(root: Administrator) -> None:
    for limit in ("0", "501", "-1", "1.5", "many", "99999999999999999999"):
        assert (await root.fails("GET", "/v1/keyrings", query={"limit": limit}))["status"] == 400


async def test_declared_sources_are_listed_and_taken_back(node: Node, root: Administrator) -> None:
    km = node.service.manager
    await admin.declare_use(km, "default", "people", "sql:postgresql://db.example.org/app#people.email")
    await admin.declare_use(km, "default", "logs", "file:/var/log/app/*")
    listed = await root.all("/v1/key-uses", limit=1, keyring="default")
    assert sorted(use["name"] for use in listed) == ["logs", "people"]
    query = {"keyring": "default", "name": "people"}
    assert (await root.send("DELETE", "/v1/key-uses", query=query)).status_code == 204
    assert (await root.fails("DELETE", "/v1/key-uses", query=query))["code"] == "NOT_FOUND"
    assert [use["name"] for use in await root.all("/v1/key-uses", limit=1)] == ["logs"]


async def test_what_is_not_there_is_not_found(root: Administrator) -> None:
    for verb, path in (
        ("GET", "/v1/keyrings/none"),
        ("POST", "/v1/keyrings/none/rotate"),
        ("GET", "/v1/keys/none/1"),
        ("GET", "/v1/keys/default/99"),
        ("GET", f"/v1/keys/{2**63}"),
        ("POST", "/v1/keys/1/disable"),
        ("GET", "/v1/keys?keyring=none"),
        ("GET", "/v1/key-uses?keyring=none"),
    ):
        problem = await root.fails(verb, path)
        assert (problem["status"], problem["type"]) == (404, "/errors.md#key_not_found")


async def test_the_status_tells_which_keks_are_needed(root: Administrator) -> None:
    status: dict[str, Any] = await root.get("/v1/status")
    assert [kek["provider"] for kek in status["keks"]] == ["local"]
    assert status["keys"][DataKeyState.ACTIVE.value] == status["keyrings"]
    assert status["isRestored"] is False
