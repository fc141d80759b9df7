"""The fake KMS's MACs and signatures: real ones, under keys that belong to each version of a key."""

from __future__ import annotations

import hmac
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from keystead.errors import InvalidInputError, InvalidSignatureError, KeyNotFoundError
from keystead.model import KeyPurpose, KeyReference, PublicKey, Signature, SignatureAlgorithm

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    from keystead.providers.local.kek import KekVersion
    from keystead.testing.fake_kms import FakeKMS

MAC: Final = SignatureAlgorithm.HMAC_SHA_256
SIGNATURE: Final = SignatureAlgorithm.ED25519
ALGORITHM_OF: Final = {KeyPurpose.MAC: MAC, KeyPurpose.SIGN_VERIFY: SIGNATURE}


class FakeSigning:
    """HMAC-SHA-256 and Ed25519 under every key of the service."""

    _service: FakeKMS
    _name: str

    async def mac(self, message: bytes, key_id: str, *, algorithm: SignatureAlgorithm | None = None) -> Signature:
        """Return the HMAC-SHA-256 of ``message`` under the newest version."""
        await self._service.take_call("mac")
        return self._mac(message, key_id, algorithm)

    async def mac_batch(
        self, messages: Sequence[bytes], key_id: str, *, algorithm: SignatureAlgorithm | None = None
    ) -> list[Signature]:
        """Return the HMAC-SHA-256 of each message in one call."""
        await self._service.take_call("mac_batch")
        return [self._mac(message, key_id, algorithm) for message in messages]

    async def verify_mac(self, message: bytes, mac: Signature) -> None:
        """Return if ``mac`` is of ``message``, else raise ``InvalidSignatureError``."""
        await self._service.take_call("verify_mac")
        _, version = self._version(mac.key_reference.key_id, mac.key_reference.key_version)
        if mac.algorithm is not MAC or not hmac.compare_digest(_hmac(version, message), mac.value):
            raise InvalidSignatureError("the MAC is not of these bytes under this key")

    async def sign(self, message: bytes, key_id: str, *, algorithm: SignatureAlgorithm | None = None) -> Signature:
        """Return the Ed25519 signature of ``message`` under the newest version."""
        await self._service.take_call("sign")
        return self._sign(message, key_id, algorithm)

    async def sign_batch(
        self, messages: Sequence[bytes], key_id: str, *, algorithm: SignatureAlgorithm | None = None
    ) -> list[Signature]:
        """Return the Ed25519 signature of each message in one call."""
        await self._service.take_call("sign_batch")
        return [self._sign(message, key_id, algorithm) for message in messages]

    async def public_key(self, key_id: str, *, version: str | None = None) -> PublicKey:
        """Return the Ed25519 public key of a version."""
        from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

        await self._service.take_call("public_key")
        answered, found = self._version(key_id, version)
        der = _private_key(found).public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        return PublicKey(der, self._reference(answered, found, KeyPurpose.SIGN_VERIFY), (SIGNATURE,))

    def _mac(self, message: bytes, key_id: str, algorithm: SignatureAlgorithm | None) -> Signature:
        _require(MAC, algorithm)
        answered, version = self._version(key_id, None)
        return Signature(_hmac(version, message), self._reference(answered, version, KeyPurpose.MAC), MAC)

    def _sign(self, message: bytes, key_id: str, algorithm: SignatureAlgorithm | None) -> Signature:
        _require(SIGNATURE, algorithm)
        answered, version = self._version(key_id, None)
        reference = self._reference(answered, version, KeyPurpose.SIGN_VERIFY)
        return Signature(_private_key(version).sign(message), reference, SIGNATURE)

    def _version(self, key_id: str, version: str | None) -> tuple[str, KekVersion]:
        answered, versions = self._service.versions(key_id)
        for each in reversed(versions):
            if version in {None, str(each.number)}:
                return answered, each
        raise KeyNotFoundError("the fake KMS has no such version of the key")

    def _reference(self, answered: str, version: KekVersion, purpose: KeyPurpose) -> KeyReference:
        return KeyReference(self._name, answered, purpose=purpose, key_version=str(version.number))


def _require(has: SignatureAlgorithm, asked: SignatureAlgorithm | None) -> None:
    if asked not in {None, has}:
        raise InvalidInputError(f"the fake KMS does this with {has} only")


def _hmac(version: KekVersion, message: bytes) -> bytes:
    return hmac.digest(bytes(version.key), b"mac" + message, "sha256")


def _private_key(version: KekVersion) -> Ed25519PrivateKey:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    return Ed25519PrivateKey.from_private_bytes(hmac.digest(bytes(version.key), b"sign", "sha256"))
