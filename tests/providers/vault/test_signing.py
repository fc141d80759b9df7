"""MACs and signatures beyond what the conformance suite asks of every provider."""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from keystead.crypto.signatures import verify_signature
from keystead.errors import (
    InvalidInputError,
    InvalidSignatureError,
    KeyNotFoundError,
    KeyStateError,
    ProviderConnectionError,
)
from keystead.model import KeyPurpose, KeyState, SignatureAlgorithm
from keystead.providers.vault.provider import VaultKMSProvider
from tests.providers.vault.making import Making, text

MESSAGE = b"the quick brown fox"
A = SignatureAlgorithm


@pytest.mark.parametrize(("algorithm", "size"), [(A.HMAC_SHA_256, 32), (A.HMAC_SHA_384, 48), (A.HMAC_SHA_512, 64)])
async def test_a_mac_is_the_raw_hmac_and_names_the_version_that_made_it(
    making: Making, provider: VaultKMSProvider, algorithm: A, size: int
) -> None:
    bao = making.bao
    key = bao.new_key(type="hmac", key_size=32, exportable=True)
    mac = await provider.mac(MESSAGE, key, algorithm=algorithm)
    assert len(mac.value) == size
    assert (mac.algorithm, mac.key_reference.key_version) == (algorithm, "1")
    secret = bao.do("GET", f"transit/export/hmac-key/{key}/1")["keys"]["1"]
    import base64

    digest = algorithm.hash_name or ""
    assert mac.value == hmac.new(base64.b64decode(secret), MESSAGE, digest).digest()
    await provider.verify_mac(MESSAGE, mac)


async def test_every_type_of_key_makes_macs(making: Making, provider: VaultKMSProvider) -> None:
    for options in ({}, {"type": "ed25519"}, {"type": "rsa-2048"}, {"derived": True}):
        mac = await provider.mac(MESSAGE, making.bao.shared_key(**options))
        await provider.verify_mac(MESSAGE, mac)


async def test_a_mac_under_another_algorithm_key_or_version_is_invalid(
    making: Making, provider: VaultKMSProvider
) -> None:
    bao = making.bao
    key, other = bao.new_key(), bao.new_key()
    mac = await provider.mac(MESSAGE, key)
    bao.do("POST", f"transit/keys/{key}/rotate")
    reference = mac.key_reference
    for altered in (
        replace(mac, algorithm=A.HMAC_SHA_512),
        replace(mac, algorithm=A.ED25519),
        replace(mac, key_reference=replace(reference, key_version="2")),
        replace(mac, key_reference=replace(reference, key_id=other)),
    ):
        with pytest.raises(InvalidSignatureError):
            await provider.verify_mac(MESSAGE, altered)
    for version in ("3", "0", "01", "one", "", None):
        with pytest.raises(KeyNotFoundError):
            await provider.verify_mac(MESSAGE, replace(mac, key_reference=replace(reference, key_version=version)))


async def test_a_mac_whose_version_is_forbidden_could_not_be_checked_which_is_not_invalid(
    making: Making, provider: VaultKMSProvider
) -> None:
    bao = making.bao
    key = bao.new_key()
    mac = await provider.mac(MESSAGE, key)
    bao.do("POST", f"transit/keys/{key}/rotate")
    bao.do("POST", f"transit/keys/{key}/config", {"min_decryption_version": 2})
    with pytest.raises(KeyStateError):
        await provider.verify_mac(MESSAGE, mac)
    bao.destroy_key(key)
    with pytest.raises(KeyNotFoundError):
        await provider.verify_mac(MESSAGE, mac)


async def test_an_answer_that_says_neither_yes_nor_no_is_neither(making: Making, provider: VaultKMSProvider) -> None:
    mac = await provider.mac(MESSAGE, making.bao.shared_key())
    for body in (b"{}", b'{"data": {"valid": "true"}}', b'{"data": {"valid": 1}}'):
        making.proxy.fail_next(1, status=200, body=body, path="verify")
        with pytest.raises(ProviderConnectionError):
            await provider.verify_mac(MESSAGE, mac)


@pytest.mark.parametrize(
    ("kind", "algorithm", "fields"),
    [
        ("ed25519", A.ED25519, {}),
        ("ecdsa-p256", A.ECDSA_SHA_512, {"hash_algorithm": "sha2-512"}),
        ("ecdsa-p384", A.ECDSA_SHA_384, {"hash_algorithm": "sha2-384"}),
        ("ecdsa-p521", A.ECDSA_SHA_256, {}),
        ("rsa-2048", A.RSA_PSS_SHA_256, {"salt_length": "hash"}),
        ("rsa-2048", A.RSA_PSS_SHA_512, {"salt_length": "hash", "hash_algorithm": "sha2-512"}),
        ("rsa-2048", A.RSA_PKCS1_SHA_384, {"signature_algorithm": "pkcs1v15", "hash_algorithm": "sha2-384"}),
    ],
)
async def test_the_server_verifies_what_it_signed_for_us(
    making: Making, provider: VaultKMSProvider, kind: str, algorithm: A, fields: dict[str, Any]
) -> None:
    key = making.bao.shared_key(type=kind)
    signature = await provider.sign(MESSAGE, key, algorithm=algorithm)
    body = {"input": text(MESSAGE), "signature": f"vault:v1:{text(signature.value)}", **fields}
    assert making.bao.do("POST", f"transit/verify/{key}", body)["valid"] is True


async def test_of_a_long_message_only_the_hash_travels(making: Making, provider: VaultKMSProvider) -> None:
    key, message = making.bao.shared_key(type="ecdsa-p256"), bytes(40 << 20)
    signature = await provider.sign(message, key)
    public_key = await provider.public_key(key)
    verify_signature(public_key, message, signature.value, algorithm=signature.algorithm)
    batch = await provider.sign_batch([message, b"short"], key)
    verify_signature(public_key, message, batch[0].value, algorithm=signature.algorithm)


async def test_ed25519_takes_messages_whole_up_to_the_servers_limit(making: Making, provider: VaultKMSProvider) -> None:
    key = making.bao.shared_key(type="ed25519")
    message = bytes(1 << 20)
    signature = await provider.sign(message, key)
    verify_signature(await provider.public_key(key), message, signature.value, algorithm=A.ED25519)
    with pytest.raises(InvalidInputError, match="32 MiB"):
        await provider.sign(bytes(25 << 20), key)


async def test_old_versions_verify_after_a_rotation_until_they_are_forbidden(
    making: Making, provider: VaultKMSProvider
) -> None:
    bao = making.bao
    key = bao.new_key(type="ecdsa-p256")
    old = await provider.sign(MESSAGE, key)
    rotated = await provider.rotate_key(key)
    new = await provider.sign(MESSAGE, key)
    assert (old.key_reference.key_version, new.key_reference.key_version) == ("1", "2")
    assert rotated.key_version == "2"
    for signature in (old, new):
        public_key = await provider.public_key(key, version=signature.key_reference.key_version)
        verify_signature(public_key, MESSAGE, signature.value, algorithm=signature.algorithm)
        assert public_key.key_reference.created_at is not None
    newest = await provider.public_key(key)
    assert newest.key_reference.key_version == "2"
    with pytest.raises(InvalidSignatureError):
        verify_signature(newest, MESSAGE, old.value, algorithm=old.algorithm)
    bao.do("POST", f"transit/keys/{key}/config", {"min_decryption_version": 2})
    with pytest.raises(KeyNotFoundError):
        await making.provider().public_key(key, version="1")


async def test_a_version_made_by_somebody_else_has_a_public_key_at_once(
    making: Making, provider: VaultKMSProvider
) -> None:
    key = making.bao.new_key(type="ed25519")
    await provider.public_key(key)
    making.bao.do("POST", f"transit/keys/{key}/rotate")
    assert (await provider.public_key(key, version="2")).key_reference.key_version == "2"


@pytest.mark.parametrize("version", ["0", "01", "-1", "one", "", "1 ", "99999999999999999999"])
async def test_what_is_no_version_has_no_public_key(making: Making, provider: VaultKMSProvider, version: str) -> None:
    with pytest.raises(KeyNotFoundError):
        await provider.public_key(making.bao.shared_key(type="ed25519"), version=version)


async def test_keys_that_do_not_sign_say_what_would(making: Making, provider: VaultKMSProvider) -> None:
    derived = making.bao.new_key(type="ed25519", derived=True)
    for key, told in ((making.bao.shared_key(), "ed25519, ecdsa-p256 or rsa-3072"), (derived, "derived")):
        for call in (provider.sign(MESSAGE, key), provider.sign_batch([MESSAGE], key), provider.public_key(key)):
            with pytest.raises(InvalidInputError, match=told):
                await call
    with pytest.raises(InvalidInputError, match="algorithm=None is ECDSA-SHA-256"):
        await provider.sign(MESSAGE, making.bao.shared_key(type="ecdsa-p256"), algorithm=A.ED25519)


async def test_macs_and_signatures_are_not_mixed_up(making: Making, provider: VaultKMSProvider) -> None:
    key = making.bao.shared_key(type="ed25519")
    with pytest.raises(InvalidInputError, match=r"mac\(\)"):
        await provider.sign_batch([MESSAGE], key, algorithm=A.HMAC_SHA_256)
    with pytest.raises(InvalidInputError, match=r"sign\(\)"):
        await provider.mac_batch([MESSAGE], key, algorithm=A.ED25519)


@pytest.mark.parametrize(
    ("options", "purpose", "algorithms"),
    [
        ({}, KeyPurpose.ENCRYPT_DECRYPT, ()),
        ({"type": "hmac", "key_size": 32}, KeyPurpose.MAC, (A.HMAC_SHA_256, A.HMAC_SHA_384, A.HMAC_SHA_512)),
        ({"type": "ed25519"}, KeyPurpose.SIGN_VERIFY, (A.ED25519,)),
        ({"type": "ecdsa-p384"}, KeyPurpose.SIGN_VERIFY, (A.ECDSA_SHA_384, A.ECDSA_SHA_256, A.ECDSA_SHA_512)),
    ],
)
async def test_describe_tells_what_a_key_is_for(
    making: Making,
    provider: VaultKMSProvider,
    options: dict[str, Any],
    purpose: KeyPurpose,
    algorithms: tuple[A, ...],
) -> None:
    description = await provider.describe(making.bao.shared_key(**options))
    assert description.key_reference.purpose is purpose
    assert description.algorithms == algorithms
    assert description.state is KeyState.ENABLED
    if purpose is KeyPurpose.MAC:
        # The server does not tell when a MAC key was made.
        assert description.created_at is None
    else:
        assert description.created_at is not None
        assert abs((datetime.now(UTC) - description.created_at).total_seconds()) < 600


def test_hashes_are_named_as_hashlib_names_them() -> None:
    assert all(algorithm.hash_name in {None, *hashlib.algorithms_available} for algorithm in A)
