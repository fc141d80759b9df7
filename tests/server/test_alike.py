"""Whatever is wrong with a ciphertext, who sent it is told the same, to the byte; the metrics alone know better."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from keystead.access.callers import Scope
from keystead.devices.operations import Reason
from tests.fakes.clock import FakeClock
from tests.server.clients import Client, Node, sealed
from tests.server.test_reference import CIPHERTEXT, DOCUMENTS


def of_length(size: int) -> str:
    return base64.b64encode(b"\x09" * size).decode()


@pytest.fixture
async def ada(node: Node) -> Client:
    """A user's application that may decrypt, too."""
    return await node.client("ada", Scope.DEVICES_USE, Scope.DEVICES_DECRYPT)


@pytest.mark.parametrize("name", CIPHERTEXT)
async def test_every_failure_to_decrypt_is_the_same_answer_to_the_byte(
    node: Node, ada: Client, clock: FakeClock, name: str
) -> None:
    key, bob = await ada.key(), await node.client("bob")
    of_bob = await bob.key("laptop")
    member, right = CIPHERTEXT[name], sealed(key, "471142")
    kind = {"passwordAuthType": "TRANSACTION_PIN"} if name == "verifySecret" else {}
    wrong: dict[str, dict[str, Any]] = {
        "unknown key": {"keyId": "key_other"},
        "somebody else's key": {member: sealed(of_bob, "471142"), "keyId": of_bob["keyId"]},
        "to somebody else's key": {member: sealed(of_bob, "471142")},
        "no base64": {member: "!"},
        "nothing": {member: ""},
        "short": {member: of_length(255)},
        "long": {member: of_length(257)},
        "bad padding": {member: of_length(256)},
        "oversize": {member: "A" * 2736},
        "another algorithm": {"algorithm": "RSA_OAEP_SHA256"},
        "an algorithm of other keys": {"algorithm": "HPKE_X25519"},
        "no payload": {"payloadVersion": 2},
        "no text": {member: sealed(key, b"\xff")},
    }
    if name.startswith("set"):
        used = sealed(key, "471142")
        await ada.done(DOCUMENTS[name], {member: used, "keyId": key["keyId"]})
        wrong["used before"] = {member: used}
    answers: dict[bytes, list[str]] = {}
    for what, change in wrong.items():
        given = {member: right, "keyId": key["keyId"], **kind, **change}
        answer = await ada.post({"query": DOCUMENTS[name], "variables": {"input": given}})
        assert answer.status_code == 200
        answers.setdefault(answer.content, []).append(what)
    assert len(answers) == 1, answers
    assert b"DECRYPTION_FAILED" in next(iter(answers))
    await node.service.devices.metrics.flush()
    root = await node.client("root", Scope.METRICS_READ)
    told = json.loads((await root.ask("{ getEncryptionMetricsSummary }"))["data"]["getEncryptionMetricsSummary"])
    reasons = {each["reason"]: each["count"] for each in told["errorReasons"]}
    assert (reasons.pop(Reason.KEY_NOT_FOUND), reasons.pop(Reason.OVERSIZE)) == (2, 1)
    assert reasons.pop(Reason.REPLAYED, 0) == name.startswith("set")
    assert reasons == {Reason.NOT_DECRYPTED: 10}
