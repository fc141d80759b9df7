"""The policies of the documentation allow what Keystead asks AWS for, and no more."""

from __future__ import annotations

import json
import os
import re
from base64 import b64decode
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest

from keystead import KeyManager
from keystead.errors import ProviderAuthError
from keystead.manager.doctor import Patient, examine
from keystead.manager.doctor_kms import KmsUnderTest
from keystead.manager.findings import Health
from keystead.providers.aws.provider import AWSKMSProvider
from keystead.runtime.clock import SystemClock
from tests.docs.blocks import ROOT, read_blocks
from tests.fakes.aws_wire import AwsWire, Body, Reply, refusal
from tests.providers.aws.keys import ALIAS, ARN, MATERIAL, OTHER_ARN, mac_of, metadata, sealed

PAGE = (ROOT / "docs" / "kms" / "aws.md").read_text(encoding="utf-8")
ROW = re.compile(r"^\| (`[a-z_`, ]+`) \| (.*kms:.*|none) \|$", re.MULTILINE)

CALLS: dict[str, Callable[[AWSKMSProvider], Awaitable[object]]] = {
    "encrypt": lambda aws: aws.encrypt(b"value", ALIAS),
    "decrypt": lambda aws: aws.decrypt(sealed()),
    "decrypt_foreign": lambda aws: aws.decrypt_foreign(sealed(ALIAS)),
    "generate_data_key": lambda aws: aws.generate_data_key(ALIAS),
    "rewrap": lambda aws: aws.rewrap(sealed()),
    "describe": lambda aws: aws.describe(ALIAS),
    "rotate_key": lambda aws: aws.rotate_key(ALIAS),
    "on_demand_rotations_left": lambda aws: aws.on_demand_rotations_left(ALIAS),
    "get_rotation_policy": lambda aws: aws.get_rotation_policy(ALIAS),
    "mac": lambda aws: aws.mac(b"m", "alias/mac"),
    "verify_mac": lambda aws: aws.verify_mac(b"m", mac_of()),
    "sign": lambda aws: aws.sign(b"m", "alias/sign"),
    "public_key": lambda aws: aws.public_key(ALIAS),
}


def documented() -> dict[str, set[str]]:
    """Return the actions of each operation in the page's table."""
    rows = {}
    for names, actions in ROW.findall(PAGE):
        for name in re.findall(r"`([a-z_]+)`", names):
            rows[name] = set(re.findall(r"`kms:([A-Za-z]+)`", actions))
    return rows


def answering(answer: Body) -> Callable[[Body], Body]:
    return lambda body: answer


def described(body: Any, *, is_rotated: bool) -> dict[str, Any]:
    special: dict[str, dict[str, Any]] = {
        "alias/mac": {"KeyUsage": "GENERATE_VERIFY_MAC", "KeySpec": "HMAC_256"},
        "alias/sign": {"KeyUsage": "SIGN_VERIFY", "SigningAlgorithms": ["ECDSA_SHA_256"]},
    }
    return metadata(**special.get(body["KeyId"], {}), CurrentKeyMaterialId="0" * 64 if is_rotated else MATERIAL)


@pytest.fixture
def willing(wire: AwsWire) -> AwsWire:
    """A service that does everything it is asked for, with a key that is always the same."""
    key = {"KeyId": ARN}
    blob = {"CiphertextBlob": bytes(184), **key}
    wire.always("Encrypt", lambda body: blob)
    wire.always("Decrypt", lambda body: {"Plaintext": bytes(range(32)), "KeyId": body["KeyId"]})
    wire.always("GenerateDataKey", lambda body: {"Plaintext": bytes(range(32)), "KeyMaterialId": MATERIAL, **blob})
    wire.always("ReEncrypt", lambda body: {"SourceKeyId": ARN, "DestinationKeyMaterialId": "0" * 64, **blob})
    wire.always("DescribeKey", lambda body: described(body, is_rotated="RotateKeyOnDemand" in wire.actions))
    wire.always("RotateKeyOnDemand", lambda body: key)
    wire.always("ListKeyRotations", lambda body: {"Rotations": [], "Truncated": False})
    wire.always("GetKeyRotationStatus", lambda body: {"KeyRotationEnabled": False})
    wire.always("GenerateMac", lambda body: {"Mac": bytes(32), **key})
    wire.always("VerifyMac", lambda body: {"MacValid": True, **key})
    wire.always("Sign", lambda body: {"Signature": b"s", **key})
    public = {"PublicKey": b"d", "KeyUsage": "SIGN_VERIFY", "SigningAlgorithms": ["ECDSA_SHA_256"]}
    wire.always("GetPublicKey", lambda body: {**public, **key})
    return wire


def asked(wire: AwsWire) -> set[str]:
    """Return the permissions that what was asked for needs."""
    actions = set(wire.actions)
    if "ReEncrypt" in actions:
        actions = actions - {"ReEncrypt"} | {"ReEncryptFrom", "ReEncryptTo"}
    return actions


def test_the_table_names_every_operation() -> None:
    assert set(documented()) == {*CALLS, "service_time"}


@pytest.mark.parametrize("name", CALLS)
async def test_the_table_names_the_permissions_of_an_operation(
    aws: AWSKMSProvider, willing: AwsWire, name: str
) -> None:
    await CALLS[name](aws)
    assert asked(willing) == documented()[name]


async def test_the_policy_of_a_store_allows_what_its_processes_ask_for_and_binds_it(
    willing: AwsWire, aws: AWSKMSProvider, tmp_path: Path
) -> None:
    bound, free = statements()[0]
    # Then AWS rotates the key by its schedule, and then the alias moves.
    for key, material in ((ARN, MATERIAL), (ARN, "0" * 64), (OTHER_ARN, "0" * 64)):
        willing.always("DescribeKey", answering(metadata(Arn=key, CurrentKeyMaterialId=material)))
        willing.always("Encrypt", answering({"CiphertextBlob": bytes(184), "KeyId": key}))
        url = f"sqlite:///{tmp_path / 'keys.db'}"
        async with KeyManager({"aws": aws}, default_key_id=ALIAS, store=url, background=False) as km:
            await km.rotate_data_key(promote="now")
            report = await km.perform_maintenance()
            assert not report.failures
    assert {f"kms:{action}" for action in asked(willing)} == {*bound["Action"], free["Action"]}
    for request in willing.requests:
        contexts = [value for name, value in request.body.items() if name.endswith("EncryptionContext")]
        assert bool(contexts) is (request.action != "DescribeKey")
        for context in contexts:
            condition = {"kms:EncryptionContext:keystead.purpose": context["keystead.purpose"]}
            assert bound["Condition"]["StringEquals"] == condition


class LittleKms:
    """One symmetric key, used by somebody whom the statements of a policy allow what they allow, and nothing else."""

    def __init__(self, wire: AwsWire, statements: list[dict[str, Any]]) -> None:
        self._statements = statements
        self._sealed: dict[bytes, tuple[bytes, Any]] = {}
        wire.always("Encrypt", self._of("EncryptionContext", self._encrypt, "Encrypt"))
        wire.always("Decrypt", self._of("EncryptionContext", self._decrypt, "Decrypt"))
        wire.always("GenerateDataKey", self._of("EncryptionContext", self._generate, "GenerateDataKey"))
        moved = self._of("SourceEncryptionContext", self._re_encrypt, "ReEncryptFrom", "ReEncryptTo")
        wire.always("ReEncrypt", moved)
        wire.always("DescribeKey", self._of("", lambda body: metadata(), "DescribeKey"))
        status = {"KeyRotationEnabled": True, "RotationPeriodInDays": 365}
        wire.always("GetKeyRotationStatus", self._of("", answering(status), "GetKeyRotationStatus"))
        wire.always("ListKeyRotations", self._of("", answering({"Rotations": []}), "ListKeyRotations"))
        wire.always("ListKeys", lambda body: refusal("MissingAuthenticationTokenException", headers=dated()))

    def _of(self, context: str, do: Callable[[Body], Body | Reply], *actions: str) -> Callable[[Body], Body | Reply]:
        def answer(body: Body) -> Body | Reply:
            if not all(self._allows(action, body.get(context)) for action in actions):
                return refusal("AccessDeniedException")
            return refusal("DryRunOperationException") if body.get("DryRun") else do(body)

        return answer

    def _allows(self, action: str, context: Body | None) -> bool:
        for statement in self._statements:
            actions = statement["Action"] if isinstance(statement["Action"], list) else [statement["Action"]]
            asked_for = statement.get("Condition", {}).get("StringEquals", {})
            given = {f"kms:EncryptionContext:{name}": value for name, value in (context or {}).items()}
            if f"kms:{action}" in actions and asked_for.items() <= given.items():
                return True
        return False

    def _seal(self, plaintext: bytes, context: Any) -> Body:
        blob = len(self._sealed).to_bytes(184, "big")
        self._sealed[blob] = plaintext, context
        return {"KeyId": ARN, "CiphertextBlob": blob}

    def _encrypt(self, body: Body) -> Body:
        return self._seal(b64decode(body["Plaintext"]), body["EncryptionContext"])

    def _decrypt(self, body: Body) -> Body | Reply:
        plaintext, context = self._sealed[b64decode(body["CiphertextBlob"])]
        if body["EncryptionContext"] != context:
            return refusal("InvalidCiphertextException")
        return {"KeyId": ARN, "Plaintext": plaintext}

    def _generate(self, body: Body) -> Body:
        key = bytes(range(32))
        return {**self._seal(key, body["EncryptionContext"]), "Plaintext": key, "KeyMaterialId": MATERIAL}

    def _re_encrypt(self, body: Body) -> Body:
        plaintext, _ = self._sealed[b64decode(body["CiphertextBlob"])]
        return {**self._seal(plaintext, body["DestinationEncryptionContext"]), "SourceKeyId": ARN}


def dated() -> dict[str, str]:
    return {"Date": format_datetime(datetime.now(UTC), usegmt=True)}


def statements() -> list[list[dict[str, Any]]]:
    """Return the statements of each policy of the page."""
    blocks = [json.loads(block.text) for block in read_blocks(PAGE) if block.language == "json"]
    return [block.get("Statement", [block]) for block in blocks]


async def test_the_policy_of_a_store_opens_it(wire: AwsWire, aws: AWSKMSProvider, tmp_path: Path) -> None:
    LittleKms(wire, statements()[0])
    url = f"sqlite:///{tmp_path / 'keys.db'}"
    for _ in range(2):
        async with KeyManager({"aws": aws}, default_key_id=ALIAS, store=url, background=False) as km:
            blob = km.local_encrypt(b"value")
            assert not (await km.perform_maintenance()).failures
    assert blob


async def test_the_policy_of_a_store_decrypts_nothing_else_under_the_same_key(
    wire: AwsWire, aws: AWSKMSProvider
) -> None:
    LittleKms(wire, statements()[0])
    for context in ({}, {"tenant": "north"}):
        with pytest.raises(ProviderAuthError, match="kms:Decrypt"):
            await aws.decrypt(sealed(context=context))


async def test_with_the_doctors_statement_the_doctor_finds_nothing_denied(wire: AwsWire, aws: AWSKMSProvider) -> None:
    store, doctor = statements()[:2]
    LittleKms(wire, [*store, *doctor])
    under_test = KmsUnderTest(name="aws", provider=aws, key_id=ALIAS)
    patient = Patient(clock=SystemClock(), random=os.urandom, providers=[under_test])
    report = await examine(patient, deadline_s=60.0)
    assert [finding for finding in report.findings if finding.status is Health.FAIL] == []
    assert {finding.check for finding in report.findings} >= {"encrypt", "decrypt", "context", "permissions", "clock"}
