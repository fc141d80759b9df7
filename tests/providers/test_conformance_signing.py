"""What every provider that makes MACs or signatures does alike."""

from __future__ import annotations

from dataclasses import replace
from typing import cast

import pytest

from keystead.crypto.signatures import verify_signature
from keystead.errors import InvalidInputError, InvalidSignatureError, KeyNotFoundError
from keystead.model import KeyPurpose, PublicKey, Signature, SignatureAlgorithm
from keystead.ports import (
    ComputesMacBatches,
    ComputesMacs,
    DescribesKeys,
    ListsKeyVersions,
    RotatesKeys,
    SignsBatches,
    SignsMessages,
)
from tests.providers.harnesses import HARNESSES, subjects
from tests.providers.subjects.subject import Harness, Subject

MESSAGE = b"what is signed"


def signed_with(algorithm: SignatureAlgorithm) -> list[str]:
    return [name for name, harness in HARNESSES.items() if algorithm in harness.algorithms]


each_algorithm = pytest.mark.parametrize(
    ("subject", "algorithm"),
    [(name, algorithm) for algorithm in SignatureAlgorithm for name in signed_with(algorithm)],
    indirect=["subject"],
)


async def signed(subject: Subject, algorithm: SignatureAlgorithm, message: bytes = MESSAGE) -> Signature:
    provider = cast(SignsMessages, subject.provider)
    return await provider.sign(message, subject.signing_keys[algorithm], algorithm=algorithm)


async def public_key_of(subject: Subject, signature: Signature) -> PublicKey:
    reference = signature.key_reference
    return await cast(SignsMessages, subject.provider).public_key(reference.key_id, version=reference.key_version)


@subjects(ComputesMacs, encrypts=None)
async def test_a_mac_is_verified(subject: Subject) -> None:
    provider = cast(ComputesMacs, subject.provider)
    mac = await provider.mac(MESSAGE, subject.mac_key_id)
    await provider.verify_mac(MESSAGE, mac)
    assert mac.algorithm.is_mac
    assert mac.key_reference.purpose is KeyPurpose.MAC


@subjects(ComputesMacs, encrypts=None)
async def test_a_mac_of_another_message_is_invalid(subject: Subject) -> None:
    provider = cast(ComputesMacs, subject.provider)
    mac = await provider.mac(MESSAGE, subject.mac_key_id)
    with pytest.raises(InvalidSignatureError):
        await provider.verify_mac(b"another message", mac)


@subjects(ComputesMacs, encrypts=None)
async def test_an_altered_mac_is_invalid(subject: Subject) -> None:
    provider = cast(ComputesMacs, subject.provider)
    mac = await provider.mac(MESSAGE, subject.mac_key_id)
    for value in (flipped(mac.value, 0), flipped(mac.value, len(mac.value) - 1), mac.value[:-1], b""):
        with pytest.raises(InvalidSignatureError):
            await provider.verify_mac(MESSAGE, replace(mac, value=value))


@subjects(ComputesMacs, encrypts=None)
async def test_an_empty_mac_key_id_is_refused(subject: Subject) -> None:
    with pytest.raises((InvalidInputError, KeyNotFoundError)):
        await cast(ComputesMacs, subject.provider).mac(MESSAGE, "")


@subjects(ComputesMacs, encrypts=None)
async def test_a_mac_key_makes_no_signatures(subject: Subject) -> None:
    with pytest.raises(InvalidInputError):
        await cast(ComputesMacs, subject.provider).mac(
            MESSAGE, subject.mac_key_id, algorithm=SignatureAlgorithm.ED25519
        )


@subjects(ComputesMacs, RotatesKeys, rotates=True, encrypts=None, rotates_mac_keys=True)
async def test_a_mac_from_before_a_rotation_is_verified(subject: Subject) -> None:
    provider = cast(ComputesMacs, subject.provider)
    old = await provider.mac(MESSAGE, subject.mac_key_id)
    await cast(RotatesKeys, subject.provider).rotate_key(subject.mac_key_id)
    new = await provider.mac(MESSAGE, subject.mac_key_id)
    await provider.verify_mac(MESSAGE, old)
    await provider.verify_mac(MESSAGE, new)
    assert new.key_reference.key_version != old.key_reference.key_version


@subjects(ComputesMacBatches, encrypts=None)
async def test_a_batch_of_macs_keeps_its_order(subject: Subject) -> None:
    messages = [str(number).encode() for number in range(20)]
    macs = await cast(ComputesMacBatches, subject.provider).mac_batch(messages, subject.mac_key_id)
    for message, mac in zip(messages, macs, strict=True):
        await cast(ComputesMacs, subject.provider).verify_mac(message, mac)


@each_algorithm
async def test_a_signature_is_verified_without_the_service(subject: Subject, algorithm: SignatureAlgorithm) -> None:
    signature = await signed(subject, algorithm)
    public_key = await public_key_of(subject, signature)
    verify_signature(public_key, MESSAGE, signature.value, algorithm=algorithm)
    assert signature.algorithm is algorithm
    assert algorithm in public_key.algorithms
    assert signature.key_reference.purpose is KeyPurpose.SIGN_VERIFY


@each_algorithm
async def test_a_signature_of_another_message_is_invalid(subject: Subject, algorithm: SignatureAlgorithm) -> None:
    signature = await signed(subject, algorithm)
    public_key = await public_key_of(subject, signature)
    with pytest.raises(InvalidSignatureError):
        verify_signature(public_key, b"another message", signature.value, algorithm=algorithm)


@each_algorithm
async def test_a_key_signs_with_its_own_algorithm_where_none_is_named(
    subject: Subject, algorithm: SignatureAlgorithm
) -> None:
    provider, key_id = cast(SignsMessages, subject.provider), subject.signing_keys[algorithm]
    signature = await provider.sign(MESSAGE, key_id)
    public_key = await public_key_of(subject, signature)
    verify_signature(public_key, MESSAGE, signature.value, algorithm=signature.algorithm)


@subjects(SignsMessages, encrypts=None)
async def test_a_long_message_is_signed_unless_its_algorithm_takes_messages_whole(
    subject: Subject, harness: Harness
) -> None:
    for algorithm in harness.algorithms:
        if algorithm.hash_name is not None and harness.signs_digests:
            message = bytes(100_000)
            signature = await signed(subject, algorithm, message)
            public_key = await public_key_of(subject, signature)
            verify_signature(public_key, message, signature.value, algorithm=algorithm)


@subjects(SignsMessages, encrypts=None)
async def test_a_signing_key_makes_no_macs(subject: Subject, harness: Harness) -> None:
    provider = cast(SignsMessages, subject.provider)
    with pytest.raises(InvalidInputError):
        key_id = subject.signing_keys[harness.algorithms[0]]
        await provider.sign(MESSAGE, key_id, algorithm=SignatureAlgorithm.HMAC_SHA_256)


@subjects(SignsMessages, encrypts=None)
async def test_a_version_that_is_not_there_has_no_public_key(subject: Subject, harness: Harness) -> None:
    provider = cast(SignsMessages, subject.provider)
    with pytest.raises(KeyNotFoundError):
        await provider.public_key(subject.signing_keys[harness.algorithms[0]], version="987654321")


@subjects(ListsKeyVersions, RotatesKeys, rotates=True)
async def test_the_versions_of_a_key_are_listed(subject: Subject) -> None:
    provider = cast(ListsKeyVersions, subject.provider)
    before = await provider.key_versions(subject.key_id)
    rotated = await cast(RotatesKeys, subject.provider).rotate_key(subject.key_id)
    assert set(await provider.key_versions(subject.key_id)) == {rotated.key_version, *before}
    assert len(before) == 1


@subjects(ListsKeyVersions)
async def test_a_key_that_is_not_there_has_no_versions(subject: Subject) -> None:
    with pytest.raises(KeyNotFoundError):
        await cast(ListsKeyVersions, subject.provider).key_versions(f"{subject.key_id}-missing")


@subjects(SignsBatches, encrypts=None)
async def test_a_batch_of_signatures_keeps_its_order(subject: Subject, harness: Harness) -> None:
    algorithm = harness.algorithms[0]
    messages = [str(number).encode() for number in range(20)]
    provider = cast(SignsBatches, subject.provider)
    signatures = await provider.sign_batch(messages, subject.signing_keys[algorithm], algorithm=algorithm)
    public_key = await public_key_of(subject, signatures[0])
    for message, signature in zip(messages, signatures, strict=True):
        verify_signature(public_key, message, signature.value, algorithm=algorithm)


@subjects(SignsMessages, DescribesKeys, encrypts=None)
async def test_describe_tells_what_a_key_signs_with(subject: Subject, harness: Harness) -> None:
    for algorithm in harness.algorithms:
        description = await cast(DescribesKeys, subject.provider).describe(subject.signing_keys[algorithm])
        if description.key_reference.purpose is KeyPurpose.SIGN_VERIFY:
            assert algorithm in description.algorithms


def flipped(value: bytes, position: int) -> bytes:
    altered = bytearray(value)
    altered[position] ^= 1
    return bytes(altered)
