"""What these credentials may do, asked by dry runs; and AWS's clock."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from keystead.errors import (
    ConfigurationError,
    InvalidInputError,
    KeyNotFoundError,
    KeyStateError,
    ProviderAuthError,
    ProviderConnectionError,
)
from keystead.model import SignatureAlgorithm
from keystead.providers.aws.provider import AWSKMSConfig, AWSKMSProvider
from tests.fakes.aws_wire import AwsWire, Body, Reply, refusal, success
from tests.providers.aws.keys import ALIAS, ARN, metadata
from tests.providers.subjects.aws import HMAC, signing_key
from tests.services.aws import AwsService

SYMMETRIC = {"describe", "encrypt", "decrypt", "generate_data_key", "rewrap", "get_rotation_policy"}
ACTIONS = [
    "Encrypt",
    "Decrypt",
    "GenerateDataKey",
    "ReEncrypt",
    "GetKeyRotationStatus",
    "GenerateMac",
    "VerifyMac",
    "Sign",
    "GetPublicKey",
]


def answering(reply: Reply) -> Callable[[Body], Reply]:
    return lambda body: reply


def dry(wire: AwsWire, *denied: str, **described: Any) -> None:
    """Script a key of which everything is allowed but ``denied``."""
    code = dict.fromkeys(denied, "AccessDeniedException")
    wire.always("DescribeKey", lambda body: metadata(**described))
    for action in ACTIONS:
        wire.always(action, answering(refusal(code.get(action, "DryRunOperationException"))))
    if "GetKeyRotationStatus" not in denied:
        wire.always("GetKeyRotationStatus", lambda body: {"KeyRotationEnabled": False})
    if "GetPublicKey" not in denied:
        wire.always("GetPublicKey", lambda body: {"KeyId": ARN})


async def test_what_a_dry_run_would_have_done_is_allowed(aws: AWSKMSProvider, wire: AwsWire) -> None:
    dry(wire)
    assert await aws.check_permissions(ALIAS) == dict.fromkeys(SYMMETRIC, True)


async def test_what_is_denied_is_not_allowed(aws: AWSKMSProvider, wire: AwsWire) -> None:
    dry(wire, "Encrypt", "ReEncrypt", "GetKeyRotationStatus")
    allowed = await aws.check_permissions(ALIAS)
    assert {name for name, may in allowed.items() if not may} == {"encrypt", "rewrap", "get_rotation_policy"}


async def test_everything_that_does_something_is_a_dry_run(aws: AWSKMSProvider, wire: AwsWire) -> None:
    for described in ({}, {"KeyUsage": "GENERATE_VERIFY_MAC", "KeySpec": "HMAC_384"}):
        dry(wire, **described)
        await aws.check_permissions(ALIAS, context={"tenant": "north"})
    reading = {"DescribeKey", "GetKeyRotationStatus", "GetPublicKey"}
    for request in wire.requests:
        assert request.action in reading or request.body["DryRun"] is True
        assert request.action != "RotateKeyOnDemand"


async def test_decrypting_is_checked_without_a_ciphertext_and_with_the_context(
    aws: AWSKMSProvider, wire: AwsWire
) -> None:
    dry(wire)
    for context, expected in (({"tenant": "north"},) * 2, ({}, {}), (None, {"keystead.purpose": "wrap"})):
        await aws.check_permissions(ALIAS, context=context)
        sent = {request.action: request.body for request in wire.requests}
        assert sent["Decrypt"]["DryRunModifiers"] == sent["ReEncrypt"]["DryRunModifiers"] == ["IGNORE_CIPHERTEXT"]
        assert sent["Decrypt"]["EncryptionContext"] == sent["Encrypt"]["EncryptionContext"] == expected


async def test_a_mac_keys_permissions_are_those_of_macs(aws: AWSKMSProvider, wire: AwsWire) -> None:
    dry(wire, "GenerateMac", KeyUsage="GENERATE_VERIFY_MAC", KeySpec="HMAC_512")
    wire.refuse("VerifyMac", "KMSInvalidMacException")
    assert await aws.check_permissions(ALIAS) == {"describe": True, "mac": False, "verify_mac": True}
    assert wire.requests[1].body["MacAlgorithm"] == "HMAC_SHA_512"


async def test_a_signing_keys_permissions_are_those_of_signing(aws: AWSKMSProvider, wire: AwsWire) -> None:
    dry(wire, "GetPublicKey", KeyUsage="SIGN_VERIFY", SigningAlgorithms=["ED25519_SHA_512"])
    assert await aws.check_permissions(ALIAS) == {"describe": True, "sign": True, "public_key": False}
    assert wire.requests[1].body["SigningAlgorithm"] == "ED25519_SHA_512"


async def test_without_the_description_what_the_key_is_not_for_is_left_out(aws: AWSKMSProvider, wire: AwsWire) -> None:
    dry(wire, "Decrypt")
    wire.always("DescribeKey", lambda body: refusal("AccessDeniedException"))
    for action in ("GenerateMac", "VerifyMac", "Sign"):
        wire.always(action, lambda body: refusal("InvalidKeyUsageException"))
    wire.always("GetPublicKey", lambda body: refusal("UnsupportedOperationException"))
    expected = {**dict.fromkeys(SYMMETRIC, True), "describe": False, "decrypt": False}
    assert await aws.check_permissions(ALIAS) == expected


async def test_a_service_that_knows_no_dry_run_without_a_ciphertext_leaves_those_open(moto: AwsService) -> None:
    provider = AWSKMSProvider(moto.config())
    allowed = await provider.check_permissions(moto.key("first"))
    assert allowed.items() >= {"encrypt": True, "generate_data_key": True, "describe": True}.items()
    assert all(allowed.values())
    await provider.aclose()


async def test_on_a_service_with_dry_runs_macs_and_signatures_are_allowed(ministack: AwsService) -> None:
    provider = AWSKMSProvider(ministack.config())
    assert (await provider.check_permissions(ministack.key("mac", **HMAC)))["mac"]
    assert (await provider.check_permissions(signing_key(ministack, SignatureAlgorithm.ED25519)))["sign"]
    await provider.aclose()


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("NotFoundException", KeyNotFoundError),
        ("DisabledException", KeyStateError),
        ("ThrottlingException", ProviderConnectionError),
        ("InvalidSignatureException", ProviderAuthError),
    ],
)
async def test_what_could_not_be_asked_is_an_error(
    aws: AWSKMSProvider, wire: AwsWire, code: str, expected: type[Exception]
) -> None:
    dry(wire)
    wire.refuse("Decrypt", code)
    with pytest.raises(expected):
        await aws.check_permissions(ALIAS)


async def test_a_key_or_context_that_can_be_none_is_refused_before_it_is_sent(
    aws: AWSKMSProvider, wire: AwsWire
) -> None:
    with pytest.raises(InvalidInputError):
        await aws.check_permissions("")
    with pytest.raises(InvalidInputError):
        await aws.check_permissions(ALIAS, context={"n": 1})  # type: ignore[dict-item]  # what is tested
    assert wire.requests == []


DATE = {"Date": "Tue, 01 Jan 2030 00:00:07 GMT"}


def dated(reply: Reply) -> Reply:
    return Reply(reply.status, reply.body, {**reply.headers, **DATE})


@pytest.mark.parametrize(
    "reply",
    [
        success({"Keys": []}),
        refusal("MissingAuthenticationTokenException"),
        refusal("KMSInternalException", status=500),
    ],
)
async def test_the_time_of_aws_is_that_of_any_answer(aws: AWSKMSProvider, wire: AwsWire, reply: Reply) -> None:
    wire.reply("ListKeys", dated(reply))
    assert await aws.service_time() == datetime(2030, 1, 1, 0, 0, 7, tzinfo=UTC)


async def test_the_time_of_aws_is_asked_for_by_nobody(wire: AwsWire, tmp_path: Any, monkeypatch: Any) -> None:
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "nothing"))
    provider = AWSKMSProvider(AWSKMSConfig("eu-west-1", endpoint_url=wire.url))
    wire.reply("ListKeys", dated(success({"Keys": []})))
    await provider.service_time()
    assert wire.requests[0].access_key == ""
    await provider.aclose()


async def test_the_time_of_a_service_is_about_now(moto: AwsService, ministack: AwsService) -> None:
    for service in (moto, ministack):
        provider = AWSKMSProvider(service.config())
        assert abs(await provider.service_time() - datetime.now(UTC)) < timedelta(minutes=5)
        await provider.aclose()


@pytest.mark.parametrize("date", ["", "yesterday"])
async def test_an_answer_without_a_time_is_a_failure_of_the_connection(
    aws: AWSKMSProvider, wire: AwsWire, date: str
) -> None:
    wire.reply("ListKeys", Reply(200, b"{}", {"Date": date}))
    with pytest.raises(ProviderConnectionError, match="tells no time"):
        await aws.service_time()


async def test_the_time_of_nobody_who_listens_is_a_failure_of_the_connection(isolated: None) -> None:
    provider = AWSKMSProvider(AWSKMSConfig("eu-west-1", endpoint_url="http://127.0.0.1:1"))
    with pytest.raises(ProviderConnectionError, match="cannot be reached"):
        await provider.service_time()
    await provider.aclose()


async def test_the_time_of_no_region_is_a_configuration_error(isolated: None) -> None:
    provider = AWSKMSProvider(AWSKMSConfig())
    with pytest.raises(ConfigurationError, match="AWS_DEFAULT_REGION"):
        await provider.service_time()
    await provider.aclose()
