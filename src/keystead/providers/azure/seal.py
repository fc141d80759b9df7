"""Wrapping and unwrapping: RSA keys with the context's hash sealed along and a signature, AES keys with it as AAD.

The local computations are the SDK's, by its clients; the format is docs/spec/azure-wrap-v1.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from keystead.crypto.signatures import ecdsa_der, verify_signature
from keystead.errors import (
    ConfigurationError,
    DecryptionError,
    InvalidInputError,
    InvalidSignatureError,
    KeyNotFoundError,
    KeyStateError,
    ProviderConnectionError,
)
from keystead.model import EncryptedData, SecretBytes, SignatureAlgorithm
from keystead.providers.azure.client import AzureConnection
from keystead.providers.azure.config import AzureKeyId, AzureKMSConfig
from keystead.providers.azure.errors import Asked
from keystead.providers.azure.keys import FoundKey
from keystead.providers.azure.signing import raw_signature
from keystead.providers.azure.wrap import (
    AES_ALGORITHM,
    AES_CAPACITY,
    RSA_ALGORITHM,
    RSA_CAPACITIES,
    AesSeal,
    RsaWrap,
    Signer,
    context_hash,
    frame,
    one_spelling,
    open_sealed,
    parse,
    unframe,
)

_FAILED: Final = "decryption failed"


async def seal(
    connection: AzureConnection,
    config: AzureKMSConfig,
    found: FoundKey,
    plaintext: bytes,
    context: Mapping[str, str] | None,
) -> tuple[bytes, str]:
    """Return the ciphertext of ``plaintext`` under a key, and the algorithm's name.

    Raises:
        InvalidInputError: it is too long, or the key does not encrypt.
        ConfigurationError: an RSA key, and nothing says who signs the wrap.
        KeyStateError: the key is disabled, not valid yet, or expired.
    """
    if found.family == "RSA":
        return await _seal_with_rsa(connection, config, found, plaintext, context_hash(context)), RSA_ALGORITHM
    if found.family == "oct":
        return await _seal_with_aes(connection, found, plaintext, context_hash(context)), AES_ALGORITHM
    raise InvalidInputError(f"{found.id} is on an elliptic curve and encrypts nothing; use an RSA or AES key")


async def unseal(
    connection: AzureConnection,
    config: AzureKMSConfig,
    key_id: AzureKeyId,
    encrypted: EncryptedData,
    context: Mapping[str, str] | None,
) -> bytes:
    """Return the plaintext of what a version sealed.

    Raises:
        DecryptionError: another key or context, altered bytes, or a signature that does not fit or is missing.
        ConfigurationError: it is signed, and the configuration names no signing key.
        KeyStateError: the key, or the one that signed, is disabled.
    """
    parsed, expected = parse(encrypted.ciphertext), context_hash(context)
    if encrypted.algorithm != (AES_ALGORITHM if isinstance(parsed, AesSeal) else RSA_ALGORITHM):
        raise DecryptionError(_FAILED)
    if isinstance(parsed, AesSeal):
        return await _unseal_with_aes(connection, key_id, parsed, expected)
    await _check_signature(connection, config, key_id, parsed, expected)
    return await _unseal_with_rsa(connection, key_id, parsed, expected)


async def _seal_with_rsa(
    connection: AzureConnection, config: AzureKMSConfig, found: FoundKey, plaintext: bytes, context: bytes
) -> bytes:
    from azure.keyvault.keys.crypto import KeyWrapAlgorithm

    if not config.signers and not config.allow_unauthenticated_wrap:
        raise ConfigurationError(
            f"{found.id.base} is an RSA key, and whoever has its public half can wrap: name a key that signs the wraps "
            "with sign_key, or accept wraps of unknown origin with allow_unauthenticated_wrap=True"
        )
    if (capacity := RSA_CAPACITIES.get(found.bits)) is None:
        raise ConfigurationError(f"{found.id.base} has {found.bits} bits; RSA keys of 2048, 3072 or 4096 bits wrap")
    _require_fits(plaintext, capacity, found)
    connection.require_usable(found, "wrapKey")
    result = await connection.compute_here(
        Asked.ENCRYPT, found, lambda client: client.wrap_key(KeyWrapAlgorithm.rsa_oaep_256, context + plaintext)
    )
    if len(result.encrypted_key) * 8 != found.bits:
        raise ProviderConnectionError(f"{found.id.host} answered with a wrapped key of another length than its key's")
    wrap = RsaWrap(result.encrypted_key)
    return (await _signed(connection, config.signers[0], found, wrap, context) if config.signers else wrap).to_bytes()


async def _signed(
    connection: AzureConnection, signer: AzureKeyId, found: FoundKey, wrap: RsaWrap, context: bytes
) -> RsaWrap:
    key = await connection.key(signer)
    algorithm = SignatureAlgorithm.RSA_PSS_SHA_256 if key.family == "RSA" else next(iter(key.algorithms), None)
    if algorithm is None or key.family == "oct":
        raise ConfigurationError(f"sign_key {key.id.base} is none that signs; use an EC key on P-256, or an RSA key")
    connection.require_usable(key, "sign")
    unsigned = replace(wrap, signer=Signer(str(key.id), algorithm))
    raw = await raw_signature(connection, key, algorithm, unsigned.message(str(found.id), context))
    return replace(unsigned, signature=one_spelling(raw, algorithm))


async def _check_signature(
    connection: AzureConnection, config: AzureKMSConfig, key_id: AzureKeyId, wrap: RsaWrap, context: bytes
) -> None:
    signer = wrap.signer
    if signer is None:
        if config.allow_unauthenticated_wrap:
            return
        raise DecryptionError("decryption failed: the wrap is not signed, and allow_unauthenticated_wrap is off")
    if not config.signers:
        raise ConfigurationError(f"this wrap is signed by {signer.key_id}; name that key in sign_key, without version")
    found = await _signing_key(connection, config, signer)
    try:
        signature = ecdsa_der(wrap.signature) if found.family == "EC" else wrap.signature
        message = wrap.message(str(key_id), context)
        verify_signature(found.public_key(signer.key_id), message, signature, algorithm=signer.algorithm)
    except (InvalidSignatureError, InvalidInputError):
        raise DecryptionError(_FAILED) from None


async def _signing_key(connection: AzureConnection, config: AzureKMSConfig, signer: Signer) -> FoundKey:
    """Return the version that a wrap says signed it, if it is one of a key that the configuration names."""
    try:
        asked = config.key_id(signer.key_id)
    except (InvalidInputError, ConfigurationError):
        raise DecryptionError(_FAILED) from None
    named = {(one.host, one.name.lower()) for one in config.signers}
    if asked.version is None or str(asked) != signer.key_id or (asked.host, asked.name.lower()) not in named:
        raise DecryptionError("decryption failed: the wrap is signed by a key that sign_key does not name")
    try:
        found = await connection.key(asked)
    except KeyNotFoundError:
        raise DecryptionError("decryption failed: there is no such version of the signing key") from None
    if not found.is_enabled:
        connection.forget(asked)
        raise KeyStateError(f"the signing key {found.id} is disabled, so that what it signed is not trusted")
    return found


async def _unseal_with_rsa(connection: AzureConnection, key_id: AzureKeyId, wrap: RsaWrap, context: bytes) -> bytes:
    from azure.keyvault.keys.crypto import KeyWrapAlgorithm

    result = await connection.compute_by_id(
        Asked.DECRYPT, key_id, lambda client: client.unwrap_key(KeyWrapAlgorithm.rsa_oaep_256, wrap.wrapped)
    )
    return open_sealed(_answered(result.key, key_id), context)


async def _seal_with_aes(connection: AzureConnection, found: FoundKey, plaintext: bytes, context: bytes) -> bytes:
    from azure.keyvault.keys.crypto import EncryptionAlgorithm

    _require_fits(plaintext, AES_CAPACITY, found)
    connection.require_usable(found, "encrypt")
    framed = SecretBytes(frame(plaintext))
    result = await connection.compute(
        Asked.ENCRYPT,
        found,
        lambda client: client.encrypt(EncryptionAlgorithm.a256_gcm, framed, additional_authenticated_data=context),
    )
    made = AesSeal(result.iv or b"", result.tag or b"", result.ciphertext or b"")
    if (len(made.nonce), len(made.tag), len(made.sealed)) != (12, 16, len(framed)):
        raise ProviderConnectionError(f"{found.id.host} answered with a ciphertext of another form than A256GCM has")
    return made.to_bytes()


async def _unseal_with_aes(connection: AzureConnection, key_id: AzureKeyId, sealed: AesSeal, context: bytes) -> bytes:
    from azure.keyvault.keys.crypto import EncryptionAlgorithm

    result = await connection.compute_by_id(
        Asked.DECRYPT,
        key_id,
        lambda client: client.decrypt(
            EncryptionAlgorithm.a256_gcm,
            sealed.sealed,
            iv=sealed.nonce,
            authentication_tag=sealed.tag,
            additional_authenticated_data=context,
        ),
    )
    return unframe(_answered(result.plaintext, key_id))


def _require_fits(plaintext: bytes, capacity: int, found: FoundKey) -> None:
    if len(plaintext) > capacity:
        raise InvalidInputError(
            f"{found.id.base} encrypts up to {capacity} bytes in one call; use local_encrypt of the manager, or a data "
            "key of generate_data_key, for what is longer"
        )


def _answered(value: object, key_id: AzureKeyId) -> SecretBytes:
    if not isinstance(value, bytes):
        raise ProviderConnectionError(f"{key_id.host} answered without a plaintext")
    return SecretBytes(value)
