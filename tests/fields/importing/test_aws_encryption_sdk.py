"""Messages that the AWS Encryption SDK wrote, of every suite and shape, are read; the writer is the real library."""

from __future__ import annotations

import base64
import sys
import tracemalloc
from datetime import date
from typing import Any

import aws_encryption_sdk
import pytest
from aws_encryption_sdk import CommitmentPolicy, StrictAwsKmsMasterKeyProvider
from aws_encryption_sdk.identifiers import Algorithm, EncryptionKeyType, WrappingAlgorithm
from aws_encryption_sdk.internal.crypto.wrapping_keys import WrappingKey
from aws_encryption_sdk.key_providers.raw import RawMasterKey

from keystead.errors import (
    DecryptionError,
    InvalidCiphertextError,
    InvalidInputError,
    KeyStateError,
    KMSError,
    MissingDependencyError,
    ProviderAuthError,
    ProviderConnectionError,
)
from keystead.fields import importer
from tests.fakes.aws_wire import AwsWire
from tests.services.aws import REGION, AwsService

UNTIL = date(2099, 12, 31)
KEY = bytes(range(32))
RAW: dict[str, Any] = {"keys": KEY, "namespace": "app", "name": "k1", "until": UNTIL}
SUITES = [suite for suite in Algorithm if suite.name.startswith("AES_")]


def raw_key(key: bytes = KEY, name: str = "k1") -> RawMasterKey:
    """Return the old application's wrapping key."""
    wrapping = WrappingKey(WrappingAlgorithm.AES_256_GCM_IV12_TAG16_NO_PADDING, key, EncryptionKeyType.SYMMETRIC)
    return RawMasterKey(provider_id="app", key_id=name, wrapping_key=wrapping)


def message(plaintext: bytes, **options: Any) -> bytes:
    """Return a message of the real library."""
    client = aws_encryption_sdk.EncryptionSDKClient(commitment_policy=CommitmentPolicy.FORBID_ENCRYPT_ALLOW_DECRYPT)
    suite = options.get("algorithm")
    if suite is None or suite.is_committing():
        client = aws_encryption_sdk.EncryptionSDKClient()
    given = {"key_provider": raw_key(), "encryption_context": {"table": "people"}, **options}
    sealed, _ = client.encrypt(source=plaintext, **given)
    return bytes(sealed)


@pytest.mark.parametrize("suite", SUITES, ids=lambda suite: suite.name)
@pytest.mark.parametrize("frame", [0, 128, 4096])
def test_messages_of_every_suite_framed_and_unframed_are_read(suite: Any, frame: int) -> None:
    reading = importer("aws-encryption-sdk", **RAW)
    sealed = message("née Byron, twenty bytes and more".encode(), algorithm=suite, frame_length=frame)
    assert reading.recognises(sealed)
    assert reading.read(sealed) == "née Byron, twenty bytes and more"
    assert reading.read(base64.b64encode(sealed).decode()) == "née Byron, twenty bytes and more"
    assert reading.read(message(b"", algorithm=suite, frame_length=frame)) == ""


def test_another_key_another_context_and_altered_bytes_are_refused() -> None:
    sealed = message(b"value")
    assert importer("aws-encryption-sdk", **RAW, context={"table": "people"}).read(sealed) == "value"
    for options in (
        {**RAW, "keys": bytes(32)},
        {**RAW, "name": "k2"},
        {**RAW, "namespace": "other"},
        {**RAW, "context": {"table": "orders"}},
        {**RAW, "context": {"column": "email"}},
    ):
        with pytest.raises(DecryptionError):
            importer("aws-encryption-sdk", **options).read(sealed)
    reading = importer("aws-encryption-sdk", **RAW)
    for other in (b"", b"\x02\x05\x78", b"in clear", sealed[:-1], sealed + b"x", sealed[:40]):
        with pytest.raises(DecryptionError):
            reading.read(other)
    assert not reading.recognises(b"\x02\x09" + sealed[2:])


def test_lengths_that_cannot_be_allocate_nothing() -> None:
    reading = importer("aws-encryption-sdk", **RAW)
    sealed = bytearray(message(b"value", algorithm=Algorithm.AES_256_GCM_IV12_TAG16_HKDF_SHA256, frame_length=0))
    for at in range(4, len(sealed) - 8):
        sealed[at : at + 8], kept = b"\xff" * 8, sealed[at : at + 8]
        tracemalloc.start()
        with pytest.raises(DecryptionError):
            reading.read(bytes(sealed))
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert most < 4 << 20
        sealed[at : at + 8] = kept
    assert reading.read(bytes(sealed)) == "value"


@pytest.fixture
def kms(moto: AwsService, monkeypatch: pytest.MonkeyPatch) -> AwsService:
    """KMS as the library finds it, by the environment."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "admin")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "admin")
    monkeypatch.setenv("AWS_DEFAULT_REGION", REGION)
    if moto.url is not None:
        monkeypatch.setenv("AWS_ENDPOINT_URL_KMS", moto.url)
    return moto


async def test_messages_under_kms_keys_are_read_through_kms(kms: AwsService) -> None:
    arn, other = kms.create(), kms.create()
    sealed = [
        message(f"value {n}".encode(), key_provider=StrictAwsKmsMasterKeyProvider(key_ids=[arn])) for n in range(3)
    ]
    strange = message(b"strange", key_provider=StrictAwsKmsMasterKeyProvider(key_ids=[other]))
    reading = importer("aws-encryption-sdk", kms_keys=[arn], context={"table": "people"}, until=UNTIL)
    assert reading.is_remote
    found = await reading.fetch_many([*sealed, strange, sealed[0][:-2]])
    assert found[:3] == ["value 0", "value 1", "value 2"]
    assert all(isinstance(one, DecryptionError) for one in found[3:])
    materials = StrictAwsKmsMasterKeyProvider(key_ids=[arn, other])
    assert await importer("aws-encryption-sdk", materials=materials, until=UNTIL).fetch_many([strange]) == ["strange"]


async def test_a_kms_that_does_not_answer_fails_the_batch_and_not_its_rows(
    kms: AwsService, monkeypatch: pytest.MonkeyPatch
) -> None:
    sealed = message(b"value", key_provider=StrictAwsKmsMasterKeyProvider(key_ids=[kms.create()]))
    monkeypatch.setenv("AWS_ENDPOINT_URL_KMS", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    reading = importer("aws-encryption-sdk", kms_keys=[kms.create()], until=UNTIL)
    strange = importer("aws-encryption-sdk", kms_keys=sealed and [_arn_of(sealed)], until=UNTIL)
    [refused] = await reading.fetch_many([sealed])
    assert isinstance(refused, KMSError)
    with pytest.raises(ProviderConnectionError, match="could not be asked"):
        await strange.fetch_many([sealed])


@pytest.mark.parametrize(
    ("code", "error"),
    [
        ("AccessDeniedException", ProviderAuthError),
        ("ThrottlingException", ProviderConnectionError),
        ("KMSInternalException", ProviderConnectionError),
    ],
)
async def test_a_refusal_of_kms_that_concerns_all_messages_fails_the_batch(
    kms: AwsService, monkeypatch: pytest.MonkeyPatch, code: str, error: type[KMSError]
) -> None:
    arn = kms.create()
    sealed = message(b"value", key_provider=StrictAwsKmsMasterKeyProvider(key_ids=[arn]))
    with AwsWire() as wire:
        monkeypatch.setenv("AWS_ENDPOINT_URL_KMS", wire.url)
        monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
        reading = importer("aws-encryption-sdk", kms_keys=arn, until=UNTIL)
        wire.refuse("Decrypt", code)
        with pytest.raises(error):
            await reading.fetch_many([sealed])
        wire.refuse("Decrypt", "DisabledException")
        [found] = await reading.fetch_many([sealed])
        assert isinstance(found, KeyStateError)
        wire.refuse("Decrypt", "InvalidCiphertextException")
        [found] = await reading.fetch_many([sealed])
        assert type(found) is DecryptionError


def _arn_of(sealed: bytes) -> str:
    start = sealed.index(b"arn:aws:kms")
    size = int.from_bytes(sealed[start - 2 : start], "big")
    return sealed[start : start + size].decode()


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({}, "takes one of keys="),
        ({"keys": KEY}, "namespace= and name="),
        ({"keys": b"short", "namespace": "a", "name": "b"}, "16, 24 or 32"),
        ({"keys": KEY, "kms_keys": ["arn"]}, "takes one of keys="),
    ],
)
def test_options_that_cannot_be_are_refused(given: dict[str, Any], told: str) -> None:
    with pytest.raises(InvalidInputError, match=told):
        importer("aws-encryption-sdk", until=UNTIL, **given)


def test_without_its_library_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith("aws_encryption_sdk.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "aws_encryption_sdk", None)
    with pytest.raises(MissingDependencyError, match=r"keystead\[aws-encryption-sdk\]"):
        importer("aws-encryption-sdk", **RAW)


def test_what_is_no_message_is_not_tried() -> None:
    with pytest.raises(InvalidCiphertextError):
        importer("aws-encryption-sdk", **RAW).read("aGVsbG8=")
