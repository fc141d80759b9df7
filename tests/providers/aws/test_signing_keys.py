"""HMAC keys and asymmetric keys. Signatures are made by ministack, whose digests, salts and refusals are AWS's."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from keystead.crypto.signatures import verify_signature
from keystead.errors import InvalidInputError, InvalidSignatureError, KeyNotFoundError, ProviderConnectionError
from keystead.model import KeyPurpose, KeyReference, Signature, SignatureAlgorithm
from keystead.providers.aws.provider import AWSKMSProvider
from tests.fakes.aws_wire import AwsWire
from tests.providers.aws.keys import ACCOUNT, ALIAS, ARN, REGION, mac_of, metadata
from tests.providers.subjects.aws import SIGNING_SPECS, signing_key
from tests.services.aws import AwsService

DER = ec.generate_private_key(ec.SECP256R1()).public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def arn(name: str) -> str:
    return f"arn:aws:kms:{REGION}:{ACCOUNT}:key/{name}"


def public(key_id: str, *algorithms: str, usage: str = "SIGN_VERIFY") -> dict[str, Any]:
    return {"KeyId": key_id, "PublicKey": DER, "KeyUsage": usage, "SigningAlgorithms": list(algorithms)}


@pytest.fixture
async def provider(ministack: AwsService) -> AsyncIterator[AWSKMSProvider]:
    provider = AWSKMSProvider(ministack.config())
    yield provider
    await provider.aclose()


async def signed(provider: AWSKMSProvider, message: bytes, key_id: str, algorithm: SignatureAlgorithm) -> None:
    signature = await provider.sign(message, key_id, algorithm=algorithm)
    key = await provider.public_key(signature.key_reference.key_id)
    verify_signature(key, message, signature.value, algorithm=algorithm)


@pytest.mark.parametrize("algorithm", [each for each in SIGNING_SPECS if each.hash_name])
async def test_the_longest_message_that_is_sent_whole_and_the_next_one_verify_alike(
    provider: AWSKMSProvider, ministack: AwsService, algorithm: SignatureAlgorithm
) -> None:
    for size in (0, 4096, 4097):
        await signed(provider, bytes(size), signing_key(ministack, algorithm), algorithm)


@pytest.mark.parametrize(
    ("size", "kind", "sent"),
    [(1, "RAW", bytes(1)), (4096, "RAW", bytes(4096)), (4097, "DIGEST", hashlib.sha384(bytes(4097)).digest())],
)
async def test_a_message_is_sent_whole_up_to_4096_bytes_and_hashed_here_above(
    aws: AWSKMSProvider, wire: AwsWire, size: int, kind: str, sent: bytes
) -> None:
    wire.answer("Sign", KeyId=ARN, Signature=b"s", SigningAlgorithm="ECDSA_SHA_384")
    await aws.sign(bytes(size), ARN, algorithm=SignatureAlgorithm.ECDSA_SHA_384)
    request = wire.requests[0]
    assert (request.body["MessageType"], request.body["SigningAlgorithm"]) == (kind, "ECDSA_SHA_384")
    assert request.blob("Message") == sent


@pytest.mark.parametrize("size", [1, 4096])
async def test_ed25519_signs_messages_whole(provider: AWSKMSProvider, ministack: AwsService, size: int) -> None:
    key_id = signing_key(ministack, SignatureAlgorithm.ED25519)
    await signed(provider, bytes(size), key_id, SignatureAlgorithm.ED25519)


@pytest.mark.parametrize("size", [0, 4097])
async def test_ed25519_refuses_what_aws_does_not_take_whole(aws: AWSKMSProvider, wire: AwsWire, size: int) -> None:
    with pytest.raises(InvalidInputError, match="of a SHA-256 of the message instead"):
        await aws.sign(bytes(size), ARN, algorithm=SignatureAlgorithm.ED25519)
    assert wire.requests == []


async def test_ed25519_is_signed_raw_and_pure(aws: AWSKMSProvider, wire: AwsWire) -> None:
    wire.answer("Sign", KeyId=ARN, Signature=b"s", SigningAlgorithm="ED25519_SHA_512")
    await aws.sign(b"m", ARN, algorithm=SignatureAlgorithm.ED25519)
    sent = wire.requests[0].body
    assert (sent["MessageType"], sent["SigningAlgorithm"]) == ("RAW", "ED25519_SHA_512")


async def test_keys_of_bitcoins_curve_sign_too(provider: AWSKMSProvider, ministack: AwsService) -> None:
    key_id = ministack.key("k1", KeySpec="ECC_SECG_P256K1", KeyUsage="SIGN_VERIFY")
    await signed(provider, b"message", key_id, SignatureAlgorithm.ECDSA_SHA_256)


async def test_an_rsa_key_signs_by_pss_where_no_algorithm_is_named(
    provider: AWSKMSProvider, ministack: AwsService
) -> None:
    key_id = signing_key(ministack, SignatureAlgorithm.RSA_PKCS1_SHA_256)
    assert (await provider.sign(b"m", key_id)).algorithm is SignatureAlgorithm.RSA_PSS_SHA_256


async def test_a_signature_names_the_arn_the_alias_and_what_it_is_for(
    provider: AWSKMSProvider, ministack: AwsService
) -> None:
    key_id = signing_key(ministack, SignatureAlgorithm.ED25519)
    alias = ministack.point("signer", key_id)
    reference = (await provider.sign(b"m", alias)).key_reference
    assert (reference.key_id, reference.key_alias, reference.key_version) == (key_id, alias, None)
    assert reference.purpose is KeyPurpose.SIGN_VERIFY


async def test_an_algorithm_that_is_not_the_keys_is_refused(provider: AWSKMSProvider, ministack: AwsService) -> None:
    key_id = signing_key(ministack, SignatureAlgorithm.ECDSA_SHA_256)
    with pytest.raises(InvalidInputError):
        await provider.sign(b"m", key_id, algorithm=SignatureAlgorithm.RSA_PSS_SHA_256)


async def test_an_encryption_key_neither_signs_nor_makes_macs(provider: AWSKMSProvider, ministack: AwsService) -> None:
    with pytest.raises(InvalidInputError, match="signs by no algorithm"):
        await provider.sign(b"m", ministack.key("first"))
    with pytest.raises(InvalidInputError, match="makes no MACs"):
        await provider.mac(b"m", ministack.key("first"))
    with pytest.raises(InvalidInputError):
        await provider.public_key(ministack.key("first"))


async def test_the_algorithms_of_a_key_are_asked_for_once(aws: AWSKMSProvider, wire: AwsWire) -> None:
    key_id = arn("algorithms-once")
    wire.answer("DescribeKey", **metadata(Arn=key_id, KeyUsage="SIGN_VERIFY", SigningAlgorithms=["ECDSA_SHA_256"]))
    wire.always("Sign", lambda body: {"KeyId": key_id, "Signature": b"s"})
    for _ in range(3):
        await aws.sign(b"m", key_id)
    assert wire.actions == ["DescribeKey", "Sign", "Sign", "Sign"]


async def test_the_algorithms_of_an_alias_are_asked_for_each_time(aws: AWSKMSProvider, wire: AwsWire) -> None:
    wire.answer("DescribeKey", **metadata(KeyUsage="SIGN_VERIFY", SigningAlgorithms=["ECDSA_SHA_256"]))
    wire.answer("DescribeKey", **metadata(KeyUsage="SIGN_VERIFY", SigningAlgorithms=["ED25519_SHA_512"]))
    wire.always("Sign", lambda body: {"KeyId": ARN, "Signature": b"s"})
    made = [(await aws.sign(b"m", ALIAS)).algorithm for _ in range(2)]
    assert made == [SignatureAlgorithm.ECDSA_SHA_256, SignatureAlgorithm.ED25519]


async def test_a_public_key_is_fetched_once_for_a_key_and_each_time_for_an_alias(
    aws: AWSKMSProvider, wire: AwsWire
) -> None:
    wire.always("GetPublicKey", lambda body: public(body["KeyId"], "ECDSA_SHA_256"))
    for key_id in (arn("fetched-once"), "fetched-once-too", ALIAS, arn("a").replace("key/a", ALIAS)):
        await aws.public_key(key_id)
        await aws.public_key(key_id)
    assert len(wire.requests) == 1 + 1 + 2 + 2


async def test_a_public_key_that_could_not_be_fetched_is_fetched_again(aws: AWSKMSProvider, wire: AwsWire) -> None:
    key_id = arn("fetched-again")
    wire.refuse("GetPublicKey", "ThrottlingException")
    wire.answer("GetPublicKey", **public(key_id, "ECDSA_SHA_256"))
    with pytest.raises(ProviderConnectionError):
        await aws.public_key(key_id)
    assert (await aws.public_key(key_id)).der == DER


async def test_what_is_remembered_of_keys_is_bounded(aws: AWSKMSProvider, wire: AwsWire) -> None:
    wire.always("GetPublicKey", lambda body: public(body["KeyId"], "ECDSA_SHA_256"))
    for number in range(300):
        await aws.public_key(arn(f"bounded-{number}"))
    assert len(aws._public_keys) <= 256


@pytest.mark.parametrize(
    "answer",
    [
        public(ARN, "SM2DSA"),
        public(ARN, "ML_DSA_SHAKE_256"),
        public(ARN, "ED25519_PH_SHA_512"),
        public(ARN),
        public(ARN, "ECDSA_SHA_256", usage="KEY_AGREEMENT"),
        public(ARN, usage="ENCRYPT_DECRYPT"),
    ],
)
async def test_a_public_key_that_keystead_verifies_nothing_with_is_refused(
    aws: AWSKMSProvider, wire: AwsWire, answer: dict[str, Any]
) -> None:
    wire.answer("GetPublicKey", **answer)
    with pytest.raises(InvalidInputError, match="does not sign, or by algorithms"):
        await aws.public_key(ALIAS)


async def test_a_version_of_an_asymmetric_key_is_not_found(aws: AWSKMSProvider, wire: AwsWire) -> None:
    with pytest.raises(KeyNotFoundError, match="a new key is another key"):
        await aws.public_key(ARN, version="2")
    assert wire.requests == []


@pytest.mark.parametrize(
    ("spec", "algorithm"),
    [
        ("HMAC_256", SignatureAlgorithm.HMAC_SHA_256),
        ("HMAC_384", SignatureAlgorithm.HMAC_SHA_384),
        ("HMAC_512", SignatureAlgorithm.HMAC_SHA_512),
    ],
)
async def test_an_hmac_key_makes_the_macs_of_its_key_spec(
    provider: AWSKMSProvider, ministack: AwsService, spec: str, algorithm: SignatureAlgorithm
) -> None:
    key_id = ministack.key(spec, KeySpec=spec, KeyUsage="GENERATE_VERIFY_MAC")
    mac = await provider.mac(b"m", key_id)
    assert (mac.algorithm, mac.key_reference.key_id) == (algorithm, key_id)
    await provider.verify_mac(b"m", mac)
    assert (await provider.describe(key_id)).algorithms == (algorithm,)


async def test_an_hmac_of_224_bits_is_not_among_ours(provider: AWSKMSProvider, ministack: AwsService) -> None:
    key_id = ministack.key("HMAC_224", KeySpec="HMAC_224", KeyUsage="GENERATE_VERIFY_MAC")
    with pytest.raises(InvalidInputError, match="HMAC_256, HMAC_384 or HMAC_512"):
        await provider.mac(b"m", key_id)


@pytest.mark.parametrize("message", [b"", bytes(4097)])
async def test_a_message_that_no_mac_is_made_of_is_refused_before_it_is_sent(
    aws: AWSKMSProvider, wire: AwsWire, message: bytes
) -> None:
    with pytest.raises(InvalidInputError, match="1 to 4096 bytes here; make the MAC"):
        await aws.mac(message, ARN)
    with pytest.raises(InvalidInputError, match="1 to 4096 bytes here"):
        await aws.verify_mac(message, mac_of())
    assert wire.requests == []


@pytest.mark.parametrize("call", ["mac", "sign"])
async def test_text_is_refused_with_the_cure(aws: AWSKMSProvider, call: str) -> None:
    with pytest.raises(InvalidInputError, match=r"\.encode\(\)"):
        await getattr(aws, call)("text", ARN)


async def test_a_mac_that_aws_calls_invalid_is(aws: AWSKMSProvider, wire: AwsWire) -> None:
    wire.refuse("VerifyMac", "KMSInvalidMacException")
    with pytest.raises(InvalidSignatureError):
        await aws.verify_mac(b"m", mac_of())


@pytest.mark.parametrize("fields", [{"MacValid": False}, {}, {"MacValid": None}])
async def test_a_mac_is_valid_only_if_the_answer_says_so(
    aws: AWSKMSProvider, wire: AwsWire, fields: dict[str, Any]
) -> None:
    wire.answer("VerifyMac", KeyId=ARN, **fields)
    with pytest.raises(InvalidSignatureError):
        await aws.verify_mac(b"m", mac_of())


@pytest.mark.parametrize("value", [b"", bytes(6145)])
async def test_what_can_be_no_mac_is_invalid_without_asking(aws: AWSKMSProvider, wire: AwsWire, value: bytes) -> None:
    with pytest.raises(InvalidSignatureError):
        await aws.verify_mac(b"m", mac_of(value))
    assert wire.requests == []


async def test_a_mac_is_checked_by_the_key_and_algorithm_it_names(aws: AWSKMSProvider, wire: AwsWire) -> None:
    wire.answer("VerifyMac", KeyId=ARN, MacValid=True, MacAlgorithm="HMAC_SHA_256")
    await aws.verify_mac(b"m", mac_of(b"value"))
    request = wire.requests[0]
    assert (request.body["KeyId"], request.body["MacAlgorithm"]) == (ARN, "HMAC_SHA_256")
    assert (request.blob("Message"), request.blob("Mac")) == (b"m", b"value")


async def test_a_signature_is_not_checked_as_a_mac(aws: AWSKMSProvider, wire: AwsWire) -> None:
    signature = Signature(b"s", KeyReference("aws", ARN), SignatureAlgorithm.ED25519)
    with pytest.raises(InvalidInputError, match="is no MAC"):
        await aws.verify_mac(b"m", signature)
    assert wire.requests == []


async def test_an_answer_for_another_key_is_refused_and_not_remembered(aws: AWSKMSProvider, wire: AwsWire) -> None:
    other = arn("aaaaaaaa-12ab-34cd-56ef-1234567890ab")
    mac = mac_of(b"m")
    for action, answer, call in (
        ("DescribeKey", metadata(Arn=other), lambda: aws.describe(ARN)),
        ("DescribeKey", metadata(Arn=other), lambda: aws.rotate_key(ARN)),
        ("GetPublicKey", public(other, "ECDSA_SHA_256"), lambda: aws.public_key(ARN)),
        (
            "Sign",
            {"KeyId": other, "Signature": b"s"},
            lambda: aws.sign(b"m", ARN, algorithm=SignatureAlgorithm.ECDSA_SHA_256),
        ),
        (
            "GenerateMac",
            {"KeyId": other, "Mac": b"m"},
            lambda: aws.mac(b"m", ARN, algorithm=SignatureAlgorithm.HMAC_SHA_256),
        ),
        ("VerifyMac", {"KeyId": other, "MacValid": True}, lambda: aws.verify_mac(b"m", mac)),
    ):
        wire.answer(action, **answer)
        with pytest.raises(ProviderConnectionError, match="another key"):
            await call()
    assert "RotateKeyOnDemand" not in [request.action for request in wire.requests]
    wire.answer("GetPublicKey", **public(ARN, "ECDSA_SHA_256"))
    assert (await aws.public_key(ARN)).key_reference.key_id == ARN
