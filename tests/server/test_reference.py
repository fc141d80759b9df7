"""The errors that the page of the GraphQL API names are those that its operations fail with."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import pytest

from keystead.access.callers import EVERY_SCOPE, Scope
from keystead.devices.junk import AT_ONCE
from scripts.gen_graphql_docs import committed_schema, operations
from scripts.graphql_words import ERRORS
from tests.server.clients import GENERATE, ROTATE, Client, Node, sealed

DOCUMENTS = {operation.name: operation.document for operation in operations(committed_schema())}
SET = {"setUserPasscode": "currentEncryptedPasscode", "setTransactionPin": "currentEncryptedPin"}
VERIFY = ("verifyUserPasscode", "verifyTransactionPin")
CIPHERTEXT = {
    "setUserPasscode": "encryptedPasscode",
    "verifyUserPasscode": "encryptedPasscode",
    "setTransactionPin": "encryptedPin",
    "verifyTransactionPin": "encryptedPin",
    "verifySecret": "encryptedSecret",
    "decryptData": "encryptedData",
}
OTHER = {
    "setUserPasscode": "TRANSACTION_PIN",
    "verifyUserPasscode": "TRANSACTION_PIN",
    "setTransactionPin": "PASSCODE",
    "verifyTransactionPin": "PASSCODE",
}


class Failures:
    """What operations were seen to fail with."""

    def __init__(self) -> None:
        self.found: dict[str, set[str]] = defaultdict(set)

    async def note(self, client: Client, name: str, variables: dict[str, Any]) -> None:
        (error,) = (await client.ask(DOCUMENTS[name], variables))["errors"]
        self.found[name].add(error["extensions"]["code"])


@pytest.mark.parametrize("installation", ["sqlite"], indirect=True)
async def test_each_error_that_the_page_names_is_met(node: Node) -> None:
    failures = Failures()
    await of_devices(failures, node)
    await of_ciphertexts(failures, node)
    assert failures.found == {name: set(errors) for name, errors in ERRORS.items()}


async def of_devices(failures: Failures, node: Node) -> None:
    ada, eve = await node.client("ada"), await node.client("eve")
    admin = await node.client("root", *EVERY_SCOPE)
    device = {"deviceId": "device-123", "kind": "X25519"}
    await ada.done(GENERATE, device)
    for _ in range(4):
        await ada.done(ROTATE, device)
    for name in ("generateClientEncryptionKey", "rotateClientEncryptionKey"):
        await failures.note(eve, name, {"input": device})
        await failures.note(ada, name, {"input": {**device, "kind": "RSA_2048"}})
    for name in ("listClientEncryptionKeys", "revokeDevice"):
        await failures.note(eve, name, {"deviceId": "device-123"})
        await failures.note(eve, name, {"deviceId": "device-456"})
    await failures.note(ada, "listClientEncryptionKeys", {"deviceId": "device-123", "limit": 0})
    await failures.note(admin, "releaseDevice", {"deviceId": "device-456"})
    await failures.note(admin, "getEncryptionMetricsSummary", {"timeframeHours": 0})
    north = await node.client("root", *EVERY_SCOPE, tenant="north")
    await failures.note(north, "getEncryptionMetricsSummary", {"timeframeHours": 24})


async def of_ciphertexts(failures: Failures, node: Node) -> None:
    ada = await node.client("ada", Scope.DEVICES_USE, Scope.DEVICES_DECRYPT)
    key = await ada.key("phone")

    def given(name: str, secret: str, **more: str | int) -> dict[str, Any]:
        kind = {"passwordAuthType": "PASSCODE"} if name == "verifySecret" else {}
        return {"input": {CIPHERTEXT[name]: sealed(key, secret), "keyId": key["keyId"], **kind, **more}}

    for name, current in SET.items():
        await failures.note(ada, name, given(name, "1"))
        await ada.ask(DOCUMENTS[name], given(name, "471142"))
        await failures.note(ada, name, given(name, "815815"))
        for _ in range(5):
            await failures.note(ada, name, given(name, "815815", **{current: sealed(key, "999000")}))
        await failures.note(ada, name, given(name, "815815", **{current: sealed(key, "471142")}))
        assert failures.found[name] == {"BAD_USER_INPUT", "FORBIDDEN", "LOCKED"}
    for name, other in OTHER.items():
        await failures.note(ada, name, given(name, "471142", passwordAuthType=other))
    for name in ("verifySecret", "decryptData", *VERIFY):
        await failures.note(ada, name, given(name, "471142", payloadVersion=3))
    for name in (*SET, "decryptData"):
        await failures.note(ada, name, given(name, "471142", keyId="another"))
    for _ in range(AT_ONCE):
        await ada.ask(DOCUMENTS["verifySecret"], given("verifySecret", "471142", keyId="another"))
    for name in CIPHERTEXT:
        await failures.note(ada, name, given(name, "471142"))
