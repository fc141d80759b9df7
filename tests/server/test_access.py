"""Nothing is done that no scope allows, for nobody whom no token shows."""

from __future__ import annotations

from itertools import product
from typing import Any, Final

import pytest
from graphql import build_schema

from keystead.access.callers import EVERY_SCOPE, Scope
from keystead.server.graphql.door import GraphQLDoor
from tests.fakes.clock import FakeClock
from tests.server.clients import GENERATE, ROTATE, SET_PASSCODE, SET_PIN, VERIFY_PASSCODE, VERIFY_PIN, Client, Node
from tests.server.rest import administrator

_USE, _ADMIN = Scope.DEVICES_USE, Scope.DEVICES_ADMIN
_DEVICE: Final = {"input": {"deviceId": "device-123"}}
_SECRET: Final = {"encryptedPasscode": "AAAA", "keyId": "key_1"}
OPERATIONS: Final[dict[str, tuple[str, dict[str, Any], frozenset[Scope]]]] = {
    "generateClientEncryptionKey": (GENERATE, _DEVICE, frozenset({_USE})),
    "rotateClientEncryptionKey": (ROTATE, _DEVICE, frozenset({_USE})),
    "setUserPasscode": (SET_PASSCODE, {"input": _SECRET}, frozenset({_USE})),
    "verifyUserPasscode": (VERIFY_PASSCODE, {"input": _SECRET}, frozenset({_USE})),
    "setTransactionPin": (SET_PIN, {"input": _SECRET}, frozenset({_USE})),
    "verifyTransactionPin": (VERIFY_PIN, {"input": _SECRET}, frozenset({_USE})),
    "verifySecret": (
        "mutation($input: VerifySecretInput!) { verifySecret(input: $input) { ok reason retryAfter } }",
        {"input": {"encryptedSecret": "AAAA", "keyId": "key_1", "passwordAuthType": "PASSCODE"}},
        frozenset({_USE}),
    ),
    "decryptData": (
        "mutation($input: DecryptDataInput!) { decryptData(input: $input) }",
        {"input": {"encryptedData": "AAAA", "keyId": "key_1"}},
        frozenset({Scope.DEVICES_DECRYPT}),
    ),
    "revokeDevice": (
        'mutation { revokeDevice(deviceId: "device-123") }',
        {},
        frozenset({_USE, _ADMIN}),
    ),
    "releaseDevice": ('mutation { releaseDevice(deviceId: "device-123") }', {}, frozenset({_ADMIN})),
    "forgetUser": ('mutation { forgetUser(userId: "nobody") }', {}, frozenset({_ADMIN})),
    "getEncryptionMetricsSummary": ("{ getEncryptionMetricsSummary }", {}, frozenset({Scope.METRICS_READ})),
    "listClientEncryptionKeys": (
        '{ listClientEncryptionKeys(deviceId: "device-123") { keyId } }',
        {},
        frozenset({_USE, _ADMIN}),
    ),
}


def code_of(answer: dict[str, Any]) -> str | None:
    if "errors" not in answer:
        return None
    (error,) = answer["errors"]
    code: str = error["extensions"]["code"]
    return code


def test_every_operation_has_a_row() -> None:
    schema = build_schema(GraphQLDoor(is_development=False).sdl)
    assert schema.query_type is not None
    assert schema.mutation_type is not None
    assert {*schema.query_type.fields, *schema.mutation_type.fields} == set(OPERATIONS)


async def test_an_operation_takes_one_of_its_scopes_and_no_other(node: Node, subtests: pytest.Subtests) -> None:
    for scope in sorted(EVERY_SCOPE):
        client = await node.client(f"user of {scope}", scope)
        for name, (query, variables, allowed) in OPERATIONS.items():
            with subtests.test(f"{name} with {scope}"):
                code = code_of(await client.ask(query, variables))
                assert (code == "FORBIDDEN") == (scope not in allowed)


async def test_nobody_is_answered_without_a_good_token(node: Node) -> None:
    good = await node.token("ada", *EVERY_SCOPE)
    client = await node.client()
    headers_sent = (None, "", "Bearer", f"Basic {good}", f"Bearer {good}x", "Bearer kst1_0000000000000000_" + "A" * 43)
    for header, (query, variables, _) in product(headers_sent, OPERATIONS.values()):
        headers = {} if header is None else {"Authorization": header}
        response = await client.post({"query": query, "variables": variables}, **headers)
        assert response.headers["www-authenticate"] == "Bearer"
        assert response.json() == {
            "data": None,
            "errors": [{"message": "no valid token was sent", "extensions": {"code": "UNAUTHENTICATED"}}],
        }


async def test_a_device_is_its_first_users_alone_but_for_who_administers(node: Node) -> None:
    ada, bob = await node.client("ada"), await node.client("bob")
    key = await ada.key()
    for query in (GENERATE, ROTATE):
        assert (await bob.fails(query, {"deviceId": "device-123"}))["code"] == "FORBIDDEN"
    assert code_of(await bob.ask(OPERATIONS["revokeDevice"][0])) == "FORBIDDEN"
    assert await ada.key() == key
    root = await node.client("root", Scope.DEVICES_ADMIN)
    listed = await root.ask(OPERATIONS["listClientEncryptionKeys"][0])
    assert listed["data"] == {"listClientEncryptionKeys": [{"keyId": key["keyId"]}]}
    assert (await root.ask(OPERATIONS["revokeDevice"][0]))["data"] == {"revokeDevice": True}
    assert (await ada.fails(GENERATE, {"deviceId": "device-123"}))["code"] == "FORBIDDEN"
    assert (await root.ask(OPERATIONS["releaseDevice"][0]))["data"] == {"releaseDevice": True}
    assert (await bob.key())["keyId"] != key["keyId"]


async def test_key_pairs_of_a_device_are_listed_a_part_at_a_time(node: Node, clock: FakeClock) -> None:
    ada, root = await node.client("ada"), await administrator(node)
    made: list[str] = []
    for _ in range(4):
        made.insert(0, (await ada.done(ROTATE, {"deviceId": "device-123"}))["keyId"])
        clock.advance(1)
    assert [each["id"] for each in await root.all("/v1/devices/device-123/keys", limit=3)] == made
    listed = "query ($limit: Int! = 1000, $after: String) { listClientEncryptionKeys("
    listed += 'deviceId: "device-123", limit: $limit, after: $after) { keyId } }'
    for after, then in ((None, made[:3]), (made[2], made[3:]), (made[3], [])):
        answer = await ada.ask(listed, {"limit": 3, "after": after})
        assert [each["keyId"] for each in answer["data"]["listClientEncryptionKeys"]] == then
    for limit in (0, 1001):
        assert code_of(await ada.ask(listed, {"limit": limit})) == "BAD_USER_INPUT"
    other = (await (await node.client("bob")).key("device-456"))["keyId"]
    for absent in ("none", other):
        assert code_of(await ada.ask(listed, {"after": absent})) == "NOT_FOUND"


async def test_a_back_end_acts_for_its_users_and_no_other_does(node: Node) -> None:
    backend = await node.client("backend", Scope.ACT_AS, Scope.DEVICES_USE)
    key = (await backend.ask(GENERATE, _DEVICE, **{"X-Keystead-User": "ada"}))["data"]["generateClientEncryptionKey"]
    assert key == await (await node.client("ada")).key()
    ada = await node.client("ada")
    assert code_of(await ada.ask(GENERATE, _DEVICE, **{"X-Keystead-User": "bob"})) == "FORBIDDEN"
    assert code_of(await backend.ask(GENERATE, _DEVICE, **{"X-Keystead-User": " "})) == "BAD_USER_INPUT"


async def test_a_user_that_a_back_end_names_has_a_name_in_utf_8(node: Node) -> None:
    backend = await node.client("backend", Scope.ACT_AS, Scope.DEVICES_USE)
    headers = {"X-Keystead-User": "zoë".encode()}
    key = (await backend.ask(GENERATE, _DEVICE, **headers))["data"]["generateClientEncryptionKey"]
    assert key == await (await node.client("zoë")).key()
    answer = await backend.ask(GENERATE, _DEVICE, **{"X-Keystead-User": b"zo\xeb"})
    assert code_of(answer) == "BAD_USER_INPUT"


async def test_tenants_have_devices_of_their_own(node: Node) -> None:
    north, south = await node.client("ada", tenant="north"), await node.client("ada", tenant="south")
    assert (await north.key())["keyId"] != (await south.key())["keyId"]


async def test_a_change_of_a_secret_takes_the_current_one_or_a_scope(node: Node, ada: Client) -> None:
    key = await ada.key()
    await ada.set_passcode(key, "first secret")
    from tests.server.clients import sealed

    given = {"encryptedPasscode": sealed(key, "second secret"), "keyId": key["keyId"]}
    assert (await ada.fails(SET_PASSCODE, given))["code"] == "FORBIDDEN"
    current = {"currentEncryptedPasscode": sealed(key, "first secret")}
    assert await ada.done(SET_PASSCODE, {**given, **current}) is True
    support = await node.client("support", Scope.ACT_AS, Scope.DEVICES_USE, Scope.SECRETS_RESET)
    given = {"encryptedPasscode": sealed(key, "third secret"), "keyId": key["keyId"]}
    answer = await support.ask(SET_PASSCODE, {"input": given}, **{"X-Keystead-User": "ada"})
    assert answer == {"data": {"setUserPasscode": True}}
    assert await ada.verify_passcode(key, "third secret") is True
