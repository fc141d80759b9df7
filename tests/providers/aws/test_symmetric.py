"""Symmetric keys: what is recorded, what is sent, what is refused. On moto where it does as AWS does."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest

from keystead.errors import (
    ConfigurationError,
    DecryptionError,
    EncryptionError,
    InvalidInputError,
    KeyNotFoundError,
    ProviderAuthError,
)
from keystead.model import EncryptedData, KeyPurpose, KeyState
from keystead.providers.aws.provider import AWSKMSConfig, AWSKMSProvider
from tests.fakes.aws_wire import AwsWire
from tests.fakes.clock import START, FakeClock
from tests.providers.aws.keys import ACCESS_KEY, ACCOUNT, ALIAS, ARN, KEY_ID, MATERIAL, OTHER_ARN, SECRET_KEY, sealed
from tests.providers.aws.keys import metadata as metadata_of
from tests.services.aws import IS_MOTO, AwsService

CONTEXT = {"tenant": "north", "tablé": "people"}
MRK = "mrk-1234abcd12ab34cd56ef1234567890ab"
AT_HOME = f"arn:aws:kms:eu-west-1:{ACCOUNT}:key/{MRK}"
ABROAD = f"arn:aws:kms:us-east-1:{ACCOUNT}:key/{MRK}"


@pytest.fixture
async def provider(moto: AwsService) -> AsyncIterator[AWSKMSProvider]:
    provider = AWSKMSProvider(moto.config())
    yield provider
    await provider.aclose()


async def test_the_record_names_the_arn_and_the_alias_that_was_typed(
    provider: AWSKMSProvider, moto: AwsService
) -> None:
    arn = moto.key("first")
    alias = moto.point("recorded", arn)
    reference = (await provider.encrypt(b"value", alias)).key_reference
    assert (reference.provider, reference.key_id, reference.key_alias) == ("aws", arn, alias)
    assert reference.purpose is KeyPurpose.ENCRYPT_DECRYPT
    assert (await provider.encrypt(b"value", arn)).key_reference.key_alias is None


async def test_a_bare_key_id_is_recorded_as_what_was_typed(provider: AWSKMSProvider, moto: AwsService) -> None:
    arn = moto.key("first")
    key_id = arn.rpartition("/")[2]
    pair = await provider.generate_data_key(key_id)
    assert (pair.key_reference.key_id, pair.key_reference.key_alias) == (arn, key_id)


async def test_what_was_encrypted_before_an_alias_moved_stays_readable(
    provider: AWSKMSProvider, moto: AwsService
) -> None:
    alias = moto.point("moving", moto.key("first"))
    old = await provider.encrypt(b"old", alias, context=CONTEXT)
    moto.point("moving", moto.key("second"))
    new = await provider.encrypt(b"new", alias, context=CONTEXT)
    assert (old.key_reference.key_id, new.key_reference.key_id) == (moto.key("first"), moto.key("second"))
    assert (await provider.decrypt(old), await provider.decrypt(new)) == (b"old", b"new")


async def test_a_record_moved_to_the_key_an_alias_names_now_does_not_decrypt(
    provider: AWSKMSProvider, moto: AwsService
) -> None:
    old = await provider.encrypt(b"old", moto.key("first"))
    moved = replace(old, key_reference=replace(old.key_reference, key_id=moto.key("second")))
    with pytest.raises((DecryptionError, ProviderAuthError) if IS_MOTO else DecryptionError):
        await provider.decrypt(moved)


async def test_a_record_read_back_from_its_dict_decrypts(provider: AWSKMSProvider, moto: AwsService) -> None:
    data = await provider.encrypt(b"value", moto.key("first"), context=CONTEXT)
    assert await provider.decrypt(EncryptedData.from_dict(data.to_dict())) == b"value"


async def test_the_context_is_the_encryption_context_of_aws(provider: AWSKMSProvider, moto: AwsService) -> None:
    data = await provider.encrypt(b"value", moto.key("first"), context=CONTEXT)
    answer = moto.admin.re_encrypt(
        CiphertextBlob=data.ciphertext,
        SourceKeyId=moto.key("first"),
        SourceEncryptionContext=CONTEXT,
        DestinationKeyId=moto.key("first"),
        DestinationEncryptionContext={"a": "b"},
    )
    rewritten = replace(data, ciphertext=answer["CiphertextBlob"], context={"a": "b"})
    assert await provider.decrypt(rewritten) == b"value"


async def test_a_missing_key_is_not_found(provider: AWSKMSProvider) -> None:
    for key_id in ("alias/nobody-made-this", KEY_ID):
        with pytest.raises(KeyNotFoundError, match="may take some seconds"):
            await provider.encrypt(b"value", key_id)


async def test_describe_tells_what_aws_tells(provider: AWSKMSProvider, moto: AwsService) -> None:
    alias = moto.point("described", moto.key("first"))
    description = await provider.describe(alias)
    assert description.key_reference.key_id == moto.key("first")
    assert description.key_reference.key_alias == alias
    assert description.state is KeyState.ENABLED
    assert description.created_at is not None
    assert description.created_at.utcoffset() is not None
    assert description.algorithms == ()


@pytest.mark.parametrize("size", [0, 4097, 100_000])
async def test_what_aws_does_not_take_is_refused_before_it_is_sent(
    aws: AWSKMSProvider, wire: AwsWire, size: int
) -> None:
    with pytest.raises(InvalidInputError, match=r"1 to 4096 bytes .* km\.local_encrypt, or generate_data_key"):
        await aws.encrypt(bytes(size), ARN)
    assert wire.requests == []


@pytest.mark.parametrize("plaintext", [bytearray(b"value"), memoryview(b"value")])
async def test_bytes_of_other_types_are_bytes(aws: AWSKMSProvider, wire: AwsWire, plaintext: Any) -> None:
    wire.answer("Encrypt", KeyId=ARN, CiphertextBlob=b"c")
    await aws.encrypt(plaintext, ARN)
    assert wire.requests[0].blob("Plaintext") == b"value"


@pytest.mark.parametrize("key_id", ["", "two words", "line\nbreak", "x" * 2049, "lone \ud800", None, b"bytes"])
async def test_a_key_id_that_can_be_none_is_refused_before_it_is_sent(
    aws: AWSKMSProvider, wire: AwsWire, key_id: Any
) -> None:
    with pytest.raises(InvalidInputError, match="key id, by alias"):
        await aws.encrypt(b"value", key_id)
    with pytest.raises(InvalidInputError, match="key id, by alias"):
        await aws.generate_data_key(key_id)
    assert wire.requests == []


@pytest.mark.parametrize("context", [{"n": 1}, {1: "n"}, {"s": "\ud800"}, [("a", "b")]])
async def test_a_context_that_is_not_text_is_refused_before_it_is_sent(
    aws: AWSKMSProvider, wire: AwsWire, context: Any
) -> None:
    for call in (
        aws.encrypt(b"value", ARN, context=context),
        aws.generate_data_key(ARN, context=context),
        aws.decrypt(sealed(), context=context),
        aws.rewrap(sealed(), context=context),
    ):
        with pytest.raises(InvalidInputError):
            await call
    assert wire.requests == []


async def test_an_encryption_sends_its_algorithm_and_context(aws: AWSKMSProvider, wire: AwsWire) -> None:
    wire.answer("Encrypt", KeyId=ARN, CiphertextBlob=b"c", EncryptionAlgorithm="SYMMETRIC_DEFAULT")
    data = await aws.encrypt(b"value", ALIAS, context=CONTEXT)
    sent = wire.requests[0].body
    assert (sent["KeyId"], sent["EncryptionContext"]) == (ALIAS, CONTEXT)
    assert sent["EncryptionAlgorithm"] == data.algorithm == "SYMMETRIC_DEFAULT"
    assert "GrantTokens" not in sent


async def test_a_decryption_sends_the_recorded_key(aws: AWSKMSProvider, wire: AwsWire) -> None:
    wire.answer("Decrypt", KeyId=ARN, Plaintext=b"value", KeyMaterialId=MATERIAL)
    assert await aws.decrypt(sealed(alias=ALIAS, context=CONTEXT)) == b"value"
    sent = wire.requests[0].body
    assert (sent["KeyId"], sent["EncryptionContext"]) == (ARN, CONTEXT)


async def test_an_empty_context_overrides_the_stored_one(aws: AWSKMSProvider, wire: AwsWire) -> None:
    wire.refuse("Decrypt", "InvalidCiphertextException")
    with pytest.raises(DecryptionError):
        await aws.decrypt(sealed(context=CONTEXT), context={})
    assert wire.requests[0].body["EncryptionContext"] == {}


@pytest.mark.parametrize("code", ["IncorrectKeyException", "InvalidCiphertextException"])
async def test_another_key_and_altered_bytes_are_one_error(aws: AWSKMSProvider, wire: AwsWire, code: str) -> None:
    for action, call in (("Decrypt", aws.decrypt), ("ReEncrypt", aws.rewrap)):
        wire.refuse(action, code)
        with pytest.raises(DecryptionError, match=r"^decryption failed$"):
            await call(sealed())


async def test_an_answer_by_another_key_than_the_recorded_one_is_refused(aws: AWSKMSProvider, wire: AwsWire) -> None:
    for answered in (OTHER_ARN, KEY_ID, ALIAS):
        wire.answer("Decrypt", KeyId=answered, Plaintext=b"value")
        with pytest.raises(DecryptionError):
            await aws.decrypt(sealed())
    for asked in (KEY_ID, ARN):
        wire.answer("Encrypt", KeyId=OTHER_ARN, CiphertextBlob=b"c")
        with pytest.raises(EncryptionError, match="another key"):
            await aws.encrypt(b"value", asked)
    wire.answer("Encrypt", KeyId=ARN, CiphertextBlob=b"c")
    assert (await aws.encrypt(b"value", KEY_ID)).key_reference.key_id == ARN
    wire.answer("ReEncrypt", SourceKeyId=OTHER_ARN, KeyId=ARN, CiphertextBlob=b"c")
    with pytest.raises(DecryptionError):
        await aws.rewrap(sealed())


@pytest.mark.parametrize(
    "data",
    [
        sealed(ciphertext=b""),
        sealed(ciphertext=bytes(6145)),
        sealed(algorithm="RSAES_OAEP_SHA_256"),
        sealed(algorithm="aes256-gcm96"),
    ],
)
async def test_a_record_that_can_be_none_is_refused_before_it_is_sent(
    aws: AWSKMSProvider, wire: AwsWire, data: EncryptedData
) -> None:
    for call in (aws.decrypt, aws.rewrap):
        with pytest.raises(DecryptionError, match=r"^decryption failed$"):
            await call(data)
    assert wire.requests == []


@pytest.mark.parametrize("key_id", ["", "two words"])
async def test_a_record_that_names_what_can_be_no_key_is_refused_before_it_is_sent(
    aws: AWSKMSProvider, wire: AwsWire, key_id: str
) -> None:
    for call in (aws.decrypt, aws.rewrap):
        with pytest.raises(KeyNotFoundError):
            await call(sealed(key_id=key_id))
    assert wire.requests == []


async def test_an_rsa_key_is_refused_since_it_cannot_bind_a_context(aws: AWSKMSProvider, wire: AwsWire) -> None:
    for action, call in (("Encrypt", aws.encrypt(b"v", ARN)), ("GenerateDataKey", aws.generate_data_key(ARN))):
        wire.refuse(action, "InvalidKeyUsageException")
        with pytest.raises(InvalidInputError, match="symmetric encryption key; an RSA key cannot bind a context"):
            await call


async def test_an_rsa_key_is_refused_by_the_service(ministack: AwsService) -> None:
    provider = AWSKMSProvider(ministack.config())
    rsa = ministack.key("rsa-oaep", KeySpec="RSA_2048", KeyUsage="ENCRYPT_DECRYPT")
    with pytest.raises(InvalidInputError):
        await provider.encrypt(b"value", rsa)
    await provider.aclose()


async def test_a_data_key_is_recorded_with_the_material_that_wrapped_it(aws: AWSKMSProvider, wire: AwsWire) -> None:
    wire.answer("GenerateDataKey", KeyId=ARN, Plaintext=bytes(32), CiphertextBlob=b"c", KeyMaterialId=MATERIAL)
    pair = await aws.generate_data_key(ALIAS, context=CONTEXT)
    assert pair.key_reference.key_version == pair.encrypted_key.key_reference.key_version == MATERIAL
    sent = wire.requests[0].body
    assert (sent["KeySpec"], sent["EncryptionContext"]) == ("AES_256", CONTEXT)
    assert "NumberOfBytes" not in sent


async def test_a_data_key_of_another_size_than_asked_for_is_refused(aws: AWSKMSProvider, wire: AwsWire) -> None:
    wire.answer("GenerateDataKey", KeyId=ARN, Plaintext=bytes(16), CiphertextBlob=b"c")
    with pytest.raises(EncryptionError, match="another size"):
        await aws.generate_data_key(ARN)


async def test_a_rewrap_names_source_and_destination_and_keeps_the_alias(aws: AWSKMSProvider, wire: AwsWire) -> None:
    wire.answer(
        "ReEncrypt",
        KeyId=ARN,
        SourceKeyId=ARN,
        CiphertextBlob=b"new",
        SourceKeyMaterialId="0" * 64,
        DestinationKeyMaterialId=MATERIAL,
    )
    new = await aws.rewrap(sealed(alias=ALIAS, context=CONTEXT))
    sent = wire.requests[0].body
    assert sent["SourceKeyId"] == sent["DestinationKeyId"] == ARN
    assert sent["SourceEncryptionContext"] == sent["DestinationEncryptionContext"] == CONTEXT
    assert (new.ciphertext, new.key_reference.key_version, new.key_reference.key_alias) == (b"new", MATERIAL, ALIAS)
    assert dict(new.context) == CONTEXT


async def test_encrypting_is_dated_by_the_injected_clock(wire: AwsWire) -> None:
    config = AWSKMSConfig("eu-west-1", access_key=ACCESS_KEY, secret_key=SECRET_KEY, endpoint_url=wire.url)
    provider = AWSKMSProvider(config, clock=FakeClock())
    wire.answer("Encrypt", KeyId=ARN, CiphertextBlob=b"c")
    assert (await provider.encrypt(b"value", ARN)).encrypted_at == START
    await provider.aclose()


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        ("Enabled", KeyState.ENABLED),
        ("Updating", KeyState.ENABLED),
        ("Disabled", KeyState.DISABLED),
        ("Creating", KeyState.DISABLED),
        ("PendingImport", KeyState.DISABLED),
        ("Unavailable", KeyState.DISABLED),
        ("SomethingNew", KeyState.DISABLED),
        ("PendingDeletion", KeyState.PENDING_DELETION),
        ("PendingReplicaDeletion", KeyState.PENDING_DELETION),
    ],
)
async def test_every_state_of_aws_is_one_of_ours(
    aws: AWSKMSProvider, wire: AwsWire, state: str, expected: KeyState
) -> None:
    wire.answer("DescribeKey", **metadata_of(KeyState=state, Enabled=False))
    assert (await aws.describe(ARN)).state is expected


async def test_describe_tells_the_current_key_material_and_the_time_in_utc(aws: AWSKMSProvider, wire: AwsWire) -> None:
    wire.answer("DescribeKey", **metadata_of())
    description = await aws.describe(ALIAS)
    assert description.current_version == description.key_reference.key_version == MATERIAL
    assert description.created_at == START
    assert str(description.created_at).endswith("+00:00")


@pytest.mark.parametrize("usage", ["KEY_AGREEMENT", "ENCAPSULATE_DECAPSULATE"])
async def test_a_key_for_something_else_is_refused(aws: AWSKMSProvider, wire: AwsWire, usage: str) -> None:
    wire.answer("DescribeKey", **metadata_of(KeyUsage=usage, KeySpec="ECC_NIST_P256"))
    with pytest.raises(InvalidInputError, match="key agreement or encapsulation"):
        await aws.describe(ARN)


async def test_a_multi_region_key_is_reached_through_its_replica_at_home(aws: AWSKMSProvider, wire: AwsWire) -> None:
    wire.answer("Decrypt", KeyId=AT_HOME, Plaintext=b"value")
    assert await aws.decrypt(sealed(ABROAD)) == b"value"
    assert (wire.requests[0].body["KeyId"], wire.requests[0].region) == (AT_HOME, "eu-west-1")


async def test_another_multi_region_key_is_another_key(aws: AWSKMSProvider, wire: AwsWire) -> None:
    wire.answer("Decrypt", KeyId=AT_HOME.replace("1234abcd", "ffffffff"), Plaintext=b"value")
    with pytest.raises(DecryptionError):
        await aws.decrypt(sealed(ABROAD))


async def test_a_key_of_another_region_does_not_go_through_an_endpoint_of_this_one(
    aws: AWSKMSProvider, wire: AwsWire
) -> None:
    with pytest.raises(ConfigurationError, match="the key is in us-east-1, and endpoint_url is one of eu-west-1"):
        await aws.decrypt(sealed(ARN.replace("eu-west-1", "us-east-1")))
    assert wire.requests == []


async def test_a_key_of_another_region_is_asked_for_in_its_own(wire: AwsWire, monkeypatch: pytest.MonkeyPatch) -> None:
    # Not the provider's own setting, so that it is the wire of every Region.
    monkeypatch.setenv("AWS_ENDPOINT_URL_KMS", wire.url)
    provider = AWSKMSProvider(AWSKMSConfig("eu-west-1", access_key=ACCESS_KEY, secret_key=SECRET_KEY))
    there = ARN.replace("eu-west-1", "us-east-1")
    wire.answer("Decrypt", KeyId=there, Plaintext=b"there")
    wire.answer("Decrypt", KeyId=ARN, Plaintext=b"here")
    assert await provider.decrypt(sealed(there)) == b"there"
    assert await provider.decrypt(sealed()) == b"here"
    assert [request.region for request in wire.requests] == ["us-east-1", "eu-west-1"]
    await provider.aclose()


FRAISEQL = {
    "ciphertext": None,
    "key_id": "aws:alias/fraiseql",
    "algorithm": "SYMMETRIC_DEFAULT",
    "encrypted_at": "2025-11-24T10:00:00+00:00",
    "context": {"service": "orders", "user": "7", "_encoding": "utf-8"},
}


async def test_what_fraiseql_encrypted_is_readable(provider: AWSKMSProvider, moto: AwsService) -> None:
    moto.point("fraiseql", moto.key("first"))
    blob = moto.admin.encrypt(KeyId="alias/fraiseql", Plaintext=b"value", EncryptionContext=FRAISEQL["context"])[
        "CiphertextBlob"
    ]
    foreign = EncryptedData.from_dict({**FRAISEQL, "ciphertext": blob.hex()})
    assert await provider.decrypt_foreign(foreign) == b"value"
    assert await provider.decrypt_foreign(replace(foreign, algorithm="data-key")) == b"value"
    with pytest.raises(DecryptionError):
        await provider.decrypt_foreign(replace(foreign, context={"service": "orders"}))
    with pytest.raises(DecryptionError):
        await provider.decrypt_foreign(replace(foreign, algorithm="aes256-gcm96"))


async def test_what_fraiseql_encrypted_is_bound_to_the_key_it_names(provider: AWSKMSProvider, moto: AwsService) -> None:
    moto.point("fraiseql", moto.key("first"))
    context = FRAISEQL["context"]
    blob = moto.admin.encrypt(KeyId="alias/fraiseql", Plaintext=b"value", EncryptionContext=context)["CiphertextBlob"]
    foreign = EncryptedData.from_dict({**FRAISEQL, "ciphertext": blob.hex()})
    moto.point("fraiseql", moto.key("second"))
    with pytest.raises((DecryptionError, ProviderAuthError) if IS_MOTO else DecryptionError):
        await provider.decrypt_foreign(foreign)
    named = replace(foreign, key_reference=replace(foreign.key_reference, key_id=moto.key("first")))
    assert await provider.decrypt_foreign(named) == b"value"
