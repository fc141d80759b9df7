"""``AwsKmsProvider`` on moto and ministack, or on what ``KEYSTEAD_TEST_AWS_ENDPOINT`` names."""

from __future__ import annotations

import hmac
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from keystead.crypto.signatures import verify_signature
from keystead.errors import (
    ConfigurationError,
    DecryptionError,
    HardcodedCredentialWarning,
    KeyNotFoundError,
    KeyStateError,
    ProviderAuthError,
    ProviderConnectionError,
)
from keystead.integrations.tamper import AwsKmsProvider
from keystead.integrations.tamper_faces import KeyFace
from keystead.ledger.signers.format import SessionSignature, TreeItem
from keystead.model import SignatureAlgorithm
from keystead.providers.aws.provider import AWSKMSConfig, AWSKMSProvider
from tests.fakes.clock import FakeClock
from tests.integrations.tamper.places import HMAC, Place, aws_place
from tests.providers.subjects.aws import error_body
from tests.services.aws import REGION, AwsService

MESSAGE = b"what happened"
Make = Callable[..., KeyFace]


@pytest.fixture
def here(moto: AwsService, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], Place]]:
    """Make places on moto, with the tests' credentials in the environment's files."""

    def make(way: str) -> Place:
        place = aws_place(moto, way)
        for name, value in place.variables.items():
            monkeypatch.setenv(name, value)
        return place

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", HardcodedCredentialWarning)
        yield make
    if moto.proxy is not None:
        moto.proxy.heal()


def calls(service: AwsService) -> int:
    return len(service.proxy.requests) if service.proxy else 0


async def test_aws_kms_provider_get_key(here: Callable[[str], Place], provider_of: Make) -> None:
    place = here("data")
    provider = provider_of(place)
    key = await provider.get_key(place.key_id)
    assert len(key) == 32
    assert await provider.get_key(place.key_id) == key
    assert await provider_of(place).get_key(place.key_id) != key  # another process draws its own


async def test_aws_kms_provider_sign(here: Callable[[str], Place], provider_of: Make) -> None:
    for way in ("mac", "data"):
        place = here(way)
        provider = provider_of(place, use_kms_signing=way == "mac")
        signature = await provider.sign(place.key_id, MESSAGE)
        assert await provider.verify(place.key_id, MESSAGE, signature)
        assert not await provider.verify(place.key_id, b"another", signature)
        assert (len(signature) == 32) is (way == "mac")


async def test_aws_kms_provider_cache(
    moto: AwsService, here: Callable[[str], Place], provider_of: Make, clock: FakeClock
) -> None:
    place = here("data")
    provider = provider_of(place, cache_ttl=300)
    key = await provider.get_key(place.key_id)
    before = calls(moto)
    clock.advance(239)
    for _ in range(20):
        assert await provider.get_key(place.key_id) == key
        await provider.sign(place.key_id, MESSAGE)
    assert calls(moto) == before


async def test_aws_kms_provider_rotation(
    moto: AwsService, here: Callable[[str], Place], provider_of: Make, clock: FakeClock
) -> None:
    place = here("data")
    provider = provider_of(place, cache_ttl=300)
    key, old = await provider.get_key(place.key_id), await provider.sign(place.key_id, MESSAGE)
    before = calls(moto)
    clock.advance(300)
    assert await provider.get_key(place.key_id) == key  # the same key, unwrapped again
    assert calls(moto) > before
    place.rotate()
    clock.advance(300)
    assert await provider.get_key(place.key_id) != key
    assert await provider.verify(place.key_id, MESSAGE, old)


async def test_f1_f2_hmac_keys_make_macs_by_their_own_calls(
    moto: AwsService, here: Callable[[str], Place], provider_of: Make
) -> None:
    place = here("mac")
    provider = provider_of(place)
    signature = await provider.sign(place.key_id, MESSAGE)
    answer = moto.admin.verify_mac(KeyId=place.key_id, Message=MESSAGE, MacAlgorithm="HMAC_SHA_256", Mac=signature)
    assert answer["MacValid"]
    assert not await provider.verify(place.key_id, MESSAGE, bytes(32))


async def test_f25_the_component_refuses_the_call_of_the_original_design(
    moto: AwsService, here: Callable[[str], Place]
) -> None:
    place = here("mac")
    with pytest.raises(ClientError):
        moto.admin.sign(KeyId=place.key_id, Message=MESSAGE, MessageType="RAW", SigningAlgorithm="HMAC_SHA_256")


async def test_f3_records_of_more_than_4096_bytes_are_signed(here: Callable[[str], Place], provider_of: Make) -> None:
    for way in ("mac", "data"):
        place = here(way)
        provider = provider_of(place)
        for size in (4096, 4097, 100_000):
            assert await provider.verify(place.key_id, bytes(size), await provider.sign(place.key_id, bytes(size)))


async def test_f4_f5_a_data_key_is_unwrapped_from_the_signature_under_its_context(
    moto: AwsService, here: Callable[[str], Place], provider_of: Make
) -> None:
    place = here("data")
    signature = await provider_of(place, stream="app").sign(place.key_id, MESSAGE)
    wrapped = SessionSignature.parse(signature).encrypted()
    context = {"keystead.purpose": "session", "keystead.stream": "app"}
    aws = AWSKMSProvider(moto.config())
    assert len(await aws.decrypt(wrapped, context=context)) == 32
    with pytest.raises(DecryptionError):
        await aws.decrypt(wrapped, context={})
    await aws.aclose()
    assert not await provider_of(place, stream="other").verify(place.key_id, MESSAGE, signature)


async def test_f20_one_signature_of_the_service_covers_a_batch(
    moto: AwsService, here: Callable[[str], Place], provider_of: Make
) -> None:
    place = here("mac")
    provider = provider_of(place)
    await provider.sign(place.key_id, MESSAGE)
    before = calls(moto)
    items = [str(number).encode() for number in range(100)]
    signatures = await provider.sign_batch(place.key_id, items)
    if moto.proxy is not None:
        assert calls(moto) == before + 1
    assert all(TreeItem.find(signature) for signature in signatures)
    assert await provider.verify(place.key_id, items[42], signatures[42])


async def test_f20_a_batch_can_be_a_few_calls_at_a_time(here: Callable[[str], Place], provider_of: Make) -> None:
    place = here("mac")
    provider = provider_of(place, batch="each", concurrency=4)
    items = [str(number).encode() for number in range(10)]
    for item, signature in zip(items, await provider.sign_batch(place.key_id, items), strict=True):
        assert len(signature) == 32
        assert await provider.verify(place.key_id, item, signature)


@pytest.mark.filterwarnings("ignore::keystead.errors.HardcodedCredentialWarning")
async def test_asymmetric_signatures_verify_without_the_service(ministack: AwsService, provider_of: Make) -> None:
    place = aws_place(ministack, "sign")
    provider: Any = provider_of(place)
    signed = await provider.sign_named(place.key_id, MESSAGE)
    key = await provider._signer.public_key()
    verify_signature(key, MESSAGE, signed.signature, algorithm=SignatureAlgorithm.ECDSA_SHA_256)
    assert await provider.verify(signed.key_id, MESSAGE, signed.signature)
    before = calls(ministack)
    for _ in range(10):
        assert await provider.verify(signed.key_id, MESSAGE, signed.signature)
    assert calls(ministack) == before


@pytest.mark.filterwarnings("ignore::keystead.errors.HardcodedCredentialWarning")
async def test_f21_a_disabled_key_signs_no_more_and_is_no_invalid_signature(
    ministack: AwsService, provider_of: Make
) -> None:
    arn = ministack.create(**HMAC)
    place = aws_place(ministack, "mac")
    place.arguments, place.key_id = [arn], arn
    provider = provider_of(place)
    signature = await provider.sign(arn, MESSAGE)
    ministack.admin.disable_key(KeyId=arn)
    with pytest.raises(KeyStateError):
        await provider.sign(arn, MESSAGE)
    with pytest.raises(KeyStateError):
        await provider.verify(arn, MESSAGE, signature)


@pytest.mark.parametrize(
    ("code", "error"),
    [
        ("ThrottlingException", ProviderConnectionError),
        ("AccessDeniedException", ProviderAuthError),
        ("KMSInternalException", ProviderConnectionError),
    ],
)
async def test_f21_throttled_and_denied_are_no_invalid_signature(
    moto: AwsService, here: Callable[[str], Place], provider_of: Make, code: str, error: type[Exception]
) -> None:
    place = here("mac")
    provider = provider_of(place)
    signature = await provider.sign(place.key_id, MESSAGE)
    assert moto.proxy is not None
    headers = {"Content-Type": "application/x-amz-json-1.1"}
    moto.proxy.fail_every(1, status=400, body=error_body(code), headers=headers)
    with pytest.raises(error):
        await provider.verify(place.key_id, MESSAGE, signature)
    moto.proxy.heal()
    assert await provider.verify(place.key_id, MESSAGE, signature)


async def test_f24_an_alias_that_moves_is_a_rotation_to_another_arn(
    moto: AwsService, here: Callable[[str], Place], provider_of: Make
) -> None:
    place = here("mac")
    provider = provider_of(place)
    old = await provider.current_key_id(place.key_id)
    place.rotate()
    assert await provider.rotate_check()
    new = await provider.current_key_id(place.key_id)
    assert old.startswith("arn:")
    assert new.startswith("arn:")
    assert new != old


async def test_a_key_of_somebody_elses_is_not_asked_to_verify(
    moto: AwsService, here: Callable[[str], Place], provider_of: Make
) -> None:
    theirs, ours = here("data"), here("data")
    signature = await provider_of(theirs).sign(theirs.key_id, MESSAGE)
    with pytest.raises(KeyNotFoundError, match="trusted_key_ids"):
        await provider_of(ours).verify(ours.key_id, MESSAGE, signature)


async def test_kms_signing_with_a_key_that_encrypts_names_the_flag(
    here: Callable[[str], Place], provider_of: Make
) -> None:
    place = here("data")
    with pytest.raises(ConfigurationError, match="use_kms_signing"):
        await provider_of(place, use_kms_signing=True).sign(place.key_id, MESSAGE)


async def test_the_key_itself_makes_the_mac_that_openssl_would(here: Callable[[str], Place], provider_of: Make) -> None:
    place = here("data")
    provider = provider_of(place)
    key = await provider.get_key(place.key_id)
    session = SessionSignature.parse(await provider.sign(place.key_id, MESSAGE))
    signing = await provider.derive_key(place.key_id, "sign")
    assert session.mac == hmac.digest(signing, session.head + MESSAGE, "sha256")
    assert signing != key


def test_region_and_configuration_that_differ_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="differ"):
        AwsKmsProvider("alias/audit", "eu-west-1", config=AWSKMSConfig("us-east-1"))


def test_credentials_in_the_configuration_are_warned_of_at_construction() -> None:
    config = AWSKMSConfig(REGION, access_key="AKIAX", secret_key="a secret")
    with pytest.warns(HardcodedCredentialWarning, match="access_key and secret_key") as caught:
        AwsKmsProvider("alias/audit", config=config)
    assert len(caught) == 1
    assert "a secret" not in str(caught[0].message)


@pytest.mark.parametrize("source", ["env", "shared-credentials-file", "config-file"])
async def test_f22_long_lived_credentials_of_boto3s_chain_are_warned_of_once(
    source: str, moto: AwsService, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    credentials = "aws_access_key_id = AKIAFOUND\naws_secret_access_key = a secret\n"
    (tmp_path / "credentials").write_text(f"[default]\n{credentials}" if source == "shared-credentials-file" else "")
    (tmp_path / "config").write_text(f"[default]\n{credentials}" if source == "config-file" else "")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    if source == "env":
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAFOUND")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "a secret")
    config = AWSKMSConfig(REGION, endpoint_url=moto.url)
    async with AwsKmsProvider(moto.key("first"), config=config) as provider:
        with pytest.warns(HardcodedCredentialWarning, match=f"'{source}'") as caught:
            await provider.sign("", MESSAGE)
        await provider.sign("", MESSAGE)
    assert len(caught) == 1


async def test_f22_credentials_of_a_process_are_not_warned_of(
    moto: AwsService, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = '{"Version": 1, "AccessKeyId": "ASIAX", "SecretAccessKey": "s", "SessionToken": "t"}'
    (tmp_path / "answer.json").write_text(answer)
    (tmp_path / "config").write_text(f"[default]\ncredential_process = cat {tmp_path / 'answer.json'}\n")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    async with AwsKmsProvider(moto.key("first"), config=AWSKMSConfig(REGION, endpoint_url=moto.url)) as provider:
        assert await provider.verify("", MESSAGE, await provider.sign("", MESSAGE))


async def test_f21_without_credentials_the_error_says_so(moto: AwsService, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nonexistent")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent")
    async with AwsKmsProvider("alias/audit", config=AWSKMSConfig(REGION, endpoint_url=moto.url)) as provider:
        with pytest.raises(ProviderAuthError):
            await provider.sign("", MESSAGE)
