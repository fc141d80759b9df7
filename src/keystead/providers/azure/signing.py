"""Signatures and, on managed HSMs, MACs: Azure is given a digest, and ECDSA comes back as r and s."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from keystead.crypto.signatures import INVALID, ecdsa_der
from keystead.errors import (
    InvalidInputError,
    InvalidSignatureError,
    KeyNotFoundError,
    ProviderConnectionError,
    SigningError,
)
from keystead.model import KeyPurpose, PublicKey, Signature, SignatureAlgorithm
from keystead.providers.azure.client import AzureConnection, Clients
from keystead.providers.azure.config import AzureKeyId, AzureKMSConfig
from keystead.providers.azure.errors import Asked
from keystead.providers.azure.keys import THEIR_NAMES, FoundKey
from keystead.providers.inputs import message_bytes

if TYPE_CHECKING:
    from azure.keyvault.keys.crypto import SignatureAlgorithm as TheirAlgorithm

_EPOCH: Final = datetime.fromtimestamp(0, UTC)


class AzureSigning(ABC):
    """What ``AzureKMSProvider`` signs with."""

    _config: AzureKMSConfig

    async def sign(self, message: bytes, key_id: str, *, algorithm: SignatureAlgorithm | None = None) -> Signature:
        """Return the signature of ``message``, of any length: it is hashed here. One request; two the first time.

        Raises:
            InvalidInputError: the key does not sign with ``algorithm``, or this is no key id.
            KeyStateError: the key is disabled, not valid yet, or expired.
        """
        content, asked = message_bytes(message), self._config.key_id(key_id)
        if algorithm is not None and algorithm.is_mac:
            raise InvalidInputError(f"{algorithm} is a MAC; mac makes those, on a managed HSM")
        connection = await self._connection()
        found = await self._signing_key(connection, asked, KeyPurpose.SIGN_VERIFY)
        chosen = _chosen(found, algorithm)
        raw = await raw_signature(connection, found, chosen, content)
        value = ecdsa_der(raw) if found.family == "EC" else raw
        return Signature(value, found.reference(key_id, KeyPurpose.SIGN_VERIFY), chosen)

    async def public_key(self, key_id: str, *, version: str | None = None) -> PublicKey:
        """Return the public key of a version, of the newest where ``version`` is None; it may be minutes old.

        Raises:
            InvalidInputError: the key is symmetric, or this is no key id.
            KeyNotFoundError: there is no such key or version.
        """
        asked = self._config.key_id(key_id)
        if version is not None:
            asked = self._config.key_id(f"{asked.base}/{version}")
        found = await (await self._connection()).key(asked)
        return found.public_key(key_id)

    async def key_versions(self, key_id: str) -> list[str]:
        """Return the versions of a key, the newest first; those of one second in no order.

        Raises:
            KeyNotFoundError: there is no such key.
        """
        asked = replace(self._config.key_id(key_id), version=None)

        async def read(clients: Clients) -> list[str]:
            listed = clients.keys(asked).list_properties_of_key_versions(asked.name)
            found = [(each.created_on, each.version) async for each in listed if each.version]
            return [version for _, version in sorted(found, key=lambda each: each[0] or _EPOCH, reverse=True)]

        versions = await (await self._connection()).ask(Asked.KEY, asked, read)
        if not versions:
            # A vault lists nothing for a key that it does not have, and every key has a version.
            raise KeyNotFoundError(f"there is no {asked}")
        return versions

    async def _mac(self, message: bytes, key_id: str, *, algorithm: SignatureAlgorithm | None = None) -> Signature:
        content, asked = message_bytes(message), self._config.key_id(key_id)
        if algorithm is not None and not algorithm.is_mac:
            raise InvalidInputError(f"{algorithm} is a signature; sign makes those")
        connection = await self._connection()
        found = await self._signing_key(connection, asked, KeyPurpose.MAC)
        chosen = _chosen(found, algorithm)
        value = await raw_signature(connection, found, chosen, content)
        return Signature(value, found.reference(key_id, KeyPurpose.MAC), chosen)

    async def _verify_mac(self, message: bytes, mac: Signature) -> None:
        content, reference = message_bytes(message), mac.key_reference
        asked = self._config.key_id(f"{self._config.key_id(reference.key_id).base}/{reference.key_version or ''}")
        if not mac.algorithm.is_mac:
            raise InvalidInputError(f"{mac.algorithm} is a signature; its public key checks it")
        digest = _digest(mac.algorithm, content)
        if len(mac.value) != len(digest):
            raise InvalidSignatureError(INVALID)
        theirs = _their(mac.algorithm)
        result = await (await self._connection()).compute_by_id(
            Asked.VERIFY, asked, lambda client: client.verify(theirs, digest, mac.value)
        )
        if result.is_valid is False:
            raise InvalidSignatureError(INVALID)
        if result.is_valid is not True:
            raise ProviderConnectionError(f"{asked.host} did not say whether the MAC is valid")

    async def _signing_key(self, connection: AzureConnection, asked: AzureKeyId, purpose: KeyPurpose) -> FoundKey:
        found = await connection.key(asked)
        if (found.family == "oct") is not (purpose is KeyPurpose.MAC):
            wanted = "an AES key of a managed HSM" if purpose is KeyPurpose.MAC else "an EC or RSA key"
            raise InvalidInputError(f"{found.id} is of another type; this takes {wanted}")
        connection.require_usable(found, "sign")
        return found

    @abstractmethod
    async def _connection(self) -> AzureConnection: ...


async def raw_signature(
    connection: AzureConnection, found: FoundKey, algorithm: SignatureAlgorithm, message: bytes
) -> bytes:
    """Return a signature or MAC as the service makes it, of the hash of ``message``.

    Raises:
        SigningError: the service answered without one.
    """
    theirs, digest = _their(algorithm), _digest(algorithm, message)
    result = await connection.compute(Asked.SIGN, found, lambda client: client.sign(theirs, digest))
    if not isinstance(result.signature, bytes) or not result.signature:
        raise SigningError(f"{found.id.host} answered without a signature")
    return result.signature


def _chosen(found: FoundKey, algorithm: SignatureAlgorithm | None) -> SignatureAlgorithm:
    known = found.algorithms
    if not known or algorithm not in {None, *known}:
        names = ", ".join(known) or "nothing that Keystead knows"
        raise InvalidInputError(f"the key {found.id} signs with {names}")
    return algorithm or known[0]


def _their(algorithm: SignatureAlgorithm) -> TheirAlgorithm:
    # The SDK wants its enum: an equal text would fail inside it, and be sent after a warning.
    from azure.keyvault.keys.crypto import SignatureAlgorithm as TheirAlgorithm

    return TheirAlgorithm(THEIR_NAMES[algorithm])


def _digest(algorithm: SignatureAlgorithm, message: bytes) -> bytes:
    return hashlib.new(algorithm.hash_name or "", message).digest()
