"""Documented clients work unchanged: their documents, their answers, their messages."""

from __future__ import annotations

import json
from datetime import timedelta

import pytest

from keystead.access.callers import Scope
from keystead.config.service import load_service
from keystead.errors import ConfigurationError
from keystead.manager.devices import policy_of
from tests.fakes.clock import FakeClock
from tests.fakes.world import polled
from tests.manager.test_background import until
from tests.server.clients import (
    GENERATE,
    ROTATE,
    SET_PASSCODE,
    SET_PIN,
    SHA256,
    VERIFY_PASSCODE,
    VERIFY_PIN,
    Client,
    Installation,
    Node,
    sealed,
)

DAY = timedelta(days=1)
FAILED = {"message": "Failed to decrypt data", "code": "DECRYPTION_FAILED"}


async def test_a_device_gets_a_key_and_the_same_one_again(ada: Client) -> None:
    first = await ada.key()
    assert first["publicKey"].startswith("-----BEGIN PUBLIC KEY-----\n")
    assert first["publicKey"].endswith("-----END PUBLIC KEY-----\n")
    assert first["keyId"].startswith("key_")
    assert await ada.key() == first
    assert (await ada.key("device-456"))["keyId"] != first["keyId"]


async def test_documents_with_their_values_inside_work_too(ada: Client) -> None:
    answer = await ada.ask(
        'mutation { generateClientEncryptionKey(input: { deviceId: "device-123", appVersion: "1.0.0" }) '
        "{ publicKey keyId } }"
    )
    key = answer["data"]["generateClientEncryptionKey"]
    assert key == await ada.key()
    given = f'{{ encryptedPasscode: "{sealed(key, "123456")}", keyId: "{key["keyId"]}", passwordAuthType: PASSCODE }}'
    assert await ada.ask(f"mutation {{ setUserPasscode(input: {given}) }}") == {"data": {"setUserPasscode": True}}


async def test_a_rotated_key_still_decrypts_and_is_not_handed_out(ada: Client) -> None:
    first, other = await ada.key(), await ada.key("device-456")
    second = await ada.done(ROTATE, {"deviceId": "device-123"})
    assert second["keyId"] != first["keyId"]
    assert await ada.key() == second
    assert await ada.key("device-456") == other
    assert await ada.set_passcode(first, "123456") is True
    assert await ada.verify_passcode(first, "123456") is True
    assert await ada.verify_passcode(second, "123456") is True


async def test_a_passcode_is_set_and_verified(ada: Client) -> None:
    key = await ada.key()
    assert await ada.verify_passcode(key, "123456") is False
    assert await ada.set_passcode(key, "123456", passwordAuthType="PASSCODE") is True
    assert await ada.verify_passcode(key, "123456", passwordAuthType="PASSCODE") is True
    assert await ada.verify_passcode(key, "654321") is False


@pytest.mark.parametrize("name", ["encryptedPin", "encryptedPasscode"])
async def test_a_pin_has_nothing_to_do_with_the_passcode(ada: Client, name: str) -> None:
    key = await ada.key()
    await ada.set_passcode(key, "correct horse")

    def pin(secret: str) -> dict[str, str]:
        return {name: sealed(key, secret), "keyId": key["keyId"], "passwordAuthType": "TRANSACTION_PIN"}

    assert await ada.done(VERIFY_PIN, pin("4711")) is False
    assert await ada.done(SET_PIN, pin("4711")) is True
    assert await ada.done(VERIFY_PIN, pin("4711")) is True
    assert await ada.verify_passcode(key, "4711") is False


async def test_a_secret_of_214_bytes_and_beyond_ascii_is_taken(ada: Client) -> None:
    key = await ada.key()
    secret = "naïve 🔑 " + "x" * (118)
    assert await ada.set_passcode(key, secret) is True
    assert await ada.verify_passcode(key, secret) is True
    longest = "y" * 214
    assert await ada.verify_passcode(key, longest) is False
    with pytest.raises(ValueError, match="Encryption failed"):
        sealed(key, "y" * 215)


async def test_what_browsers_encrypt_is_taken_if_it_is_declared_and_never_guessed(ada: Client) -> None:
    key = await ada.key()
    given = {"encryptedPasscode": sealed(key, "123456", SHA256), "keyId": key["keyId"]}
    assert await ada.fails(SET_PASSCODE, given) == FAILED
    assert await ada.done(SET_PASSCODE, {**given, "algorithm": "RSA_OAEP_SHA256"}) is True


@pytest.mark.parametrize(
    "change",
    [{"encryptedPasscode": "garbage!"}, {"encryptedPasscode": "A" * 344}, {"keyId": "clm8x9z1a0000xyz1234abcd"}],
)
async def test_what_does_not_decrypt_is_an_error_of_set_and_false_of_verify(
    ada: Client, change: dict[str, str]
) -> None:
    key = await ada.key()
    given = {"encryptedPasscode": sealed(key, "123456"), "keyId": key["keyId"], **change}
    assert await ada.fails(SET_PASSCODE, given) == FAILED
    answer = await ada.ask(VERIFY_PASSCODE, {"input": given})
    assert answer == {"data": {"verifyUserPasscode": False}, "extensions": {"keystead": {"code": "DECRYPTION_FAILED"}}}


async def test_an_expired_key_is_an_error_of_set_and_false_of_verify(node: Node, ada: Client, clock: FakeClock) -> None:
    key = await ada.key()
    clock.advance(30 * DAY - timedelta(seconds=1))
    await polled(node.service.manager)
    assert await ada.key() == key
    clock.advance(timedelta(minutes=5, seconds=1))
    given = {"encryptedPasscode": sealed(key, "123456"), "keyId": key["keyId"]}
    assert await ada.fails(SET_PASSCODE, given) == FAILED
    answer = await ada.ask(VERIFY_PASSCODE, {"input": given})
    assert answer["data"] == {"verifyUserPasscode": False}
    assert answer["extensions"] == {"keystead": {"code": "KEY_EXPIRED"}}
    assert (await ada.key())["keyId"] != key["keyId"]


async def test_what_is_longer_than_2048_bytes_is_refused_before_it_is_decrypted(ada: Client) -> None:
    key = await ada.key()
    for size, is_read in ((2048, True), (2049, False)):
        text = "A" * (4 * -(-size // 3))
        answer = await ada.ask(VERIFY_PASSCODE, {"input": {"encryptedPasscode": text, "keyId": key["keyId"]}})
        assert answer["data"] == {"verifyUserPasscode": False}, is_read
        assert await ada.fails(SET_PASSCODE, {"encryptedPasscode": text, "keyId": key["keyId"]}) == FAILED


async def test_the_type_of_a_secret_is_that_of_the_operation_where_it_is_given(ada: Client) -> None:
    key = await ada.key()
    given = {"encryptedPasscode": sealed(key, "123456"), "keyId": key["keyId"]}
    for query, wrong in (
        (SET_PASSCODE, "TRANSACTION_PIN"),
        (VERIFY_PASSCODE, "TRANSACTION_PIN"),
        (SET_PIN, "PASSCODE"),
    ):
        error = await ada.fails(query, {**given, "passwordAuthType": wrong})
        assert error["code"] == "BAD_USER_INPUT"
    for both in ({}, {"encryptedPin": given["encryptedPasscode"], "encryptedPasscode": given["encryptedPasscode"]}):
        error = await ada.fails(VERIFY_PIN, {"keyId": key["keyId"], **both})
        assert error["code"] == "BAD_USER_INPUT"
        assert "encryptedPin or as encryptedPasscode" in error["message"]


async def test_the_sixth_new_key_in_a_day_is_refused_with_the_documented_words(ada: Client) -> None:
    await ada.key()
    for _ in range(4):
        await ada.done(ROTATE, {"deviceId": "device-123"})
    error = await ada.fails(ROTATE, {"deviceId": "device-123"})
    assert error == {
        "message": "Rate limit for key generation exceeded. Try again in 1440 minutes",
        "code": "RATE_LIMITED",
        "retryAfter": 86_400.0,
    }
    await ada.key()


async def test_printed_calls_without_a_token_work_in_development(development: Client) -> None:
    key = await development.key()
    assert await development.set_passcode(key, "123456") is True
    assert await development.set_passcode(key, "654321") is True
    assert await development.verify_passcode(key, "654321") is True
    given = {"encryptedPin": sealed(key, "1234"), "keyId": key["keyId"]}
    assert await development.done(SET_PIN, given) is True
    encrypt = "mutation E($input: EncryptDataInput!) { encryptData(input: $input) }"
    decrypt = "mutation D($input: DecryptDataInput!) { decryptData(input: $input) }"
    text = await development.done(encrypt, {"data": "héllo", "keyId": key["keyId"]})
    assert await development.done(decrypt, {"encryptedData": text, "keyId": key["keyId"]}) == "héllo"
    error = await development.fails(encrypt, {"data": "x" * 215, "keyId": key["keyId"]})
    assert error["message"] == "Failed to encrypt data"


@pytest.mark.parametrize("days", [2, 30, 3650])
async def test_documented_variables_set_the_documented_things(
    installation: Installation, clock: FakeClock, days: int
) -> None:
    documented = {"ENCRYPTION_KEY_ROTATION_DAYS": str(days), "MAX_ENCRYPTED_DATA_SIZE": "256"}
    async with installation.node(environ=documented) as node:
        client = await node.client("ada", Scope.DEVICES_USE)
        answer = await client.ask(
            GENERATE.replace("publicKey keyId", "expiresAt"), {"input": {"deviceId": "device-123"}}
        )
        expires_at = answer["data"]["generateClientEncryptionKey"]["expiresAt"]
        ends = clock.now() + timedelta(seconds=days * 86_400)
        assert expires_at == ends.isoformat(timespec="milliseconds").replace("+00:00", "Z")


@pytest.mark.parametrize("name", ["ENCRYPTION_KEY_ROTATION_DAYS", "ENCRYPTION_KEY_RETENTION_DAYS"])
@pytest.mark.parametrize("days", ["abc", "0", "-1", "3651", "1e3", "30.5", "30 days", " ", "\u0663"])
def test_days_that_are_no_number_of_days_stop_the_start(name: str, days: str) -> None:
    with pytest.raises(ConfigurationError):
        policy_of(load_service(environ={name: days}).settings)


async def test_the_upkeep_of_a_node_erases_what_has_expired(node: Node, ada: Client, clock: FakeClock) -> None:
    key = await ada.key()

    async def is_erased() -> bool:
        async with node.service.reading() as work:
            kept = await work.find_client_key(key["keyId"])
        return kept is not None and kept.wrapped_private_key is None

    session = await node.service.manager.session()
    await session.run_due()
    clock.advance(30 * DAY + timedelta(minutes=5))
    await session.run_due()
    await until(is_erased)


async def test_the_summary_of_metrics_is_json_text_with_and_without_its_argument(node: Node, ada: Client) -> None:
    key, bob = await ada.key(), await node.client("bob")
    await ada.set_passcode(key, "123456")
    for secret in ("123456", "654321"):
        await ada.verify_passcode(key, secret)
    for text in ("garbage!", sealed(await bob.key("laptop"), "123456")):
        await ada.done(VERIFY_PASSCODE, {"encryptedPasscode": text, "keyId": key["keyId"]})
    # Somebody else's junk is no failure of this key.
    for _ in range(9):
        await bob.done(VERIFY_PASSCODE, {"encryptedPasscode": "garbage!", "keyId": key["keyId"]})
    await node.service.devices.metrics.flush()
    root = await node.client("root", Scope.METRICS_READ)
    texts = [
        (await root.ask(f"{{ getEncryptionMetricsSummary{given} }}"))["data"]["getEncryptionMetricsSummary"]
        for given in ("", "(timeframeHours: 24)", "(timeframeHours: 0.5)")
    ]
    for text in texts:
        summary = json.loads(text)
        decrypt = summary["operations"]["decrypt"]
        assert (decrypt["total"], decrypt["success"], decrypt["failure"]) == (14, 3, 11)
        assert summary["operations"]["generate"]["total"] == 2
        (problematic,) = summary["problematicKeys"]
        assert (problematic["keyId"], problematic["total"], problematic["failures"]) == (key["keyId"], 5, 2)
        assert problematic["failureRate"] == 40.0
        assert "device-123" not in text
    error = (await root.ask("{ getEncryptionMetricsSummary(timeframeHours: 0) }"))["errors"][0]
    assert error["extensions"]["code"] == "BAD_USER_INPUT"
