"""MACs, signatures and public keys of Cloud KMS; each is made by one named version of a key."""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

from keystead.errors import (
    InvalidInputError,
    InvalidSignatureError,
    KMSError,
    ProviderConnectionError,
)
from keystead.model import KeyPurpose, PublicKey, Signature, SignatureAlgorithm
from keystead.providers.gcp.config import KeyName
from keystead.providers.gcp.keys import (
    ALGORITHMS,
    EXTERNAL_LEVELS,
    HSM_LEVELS,
    GCPKeys,
    KeyVersion,
    is_about_the_version,
    require_same,
)
from keystead.providers.gcp.messages import require_intact
from keystead.providers.inputs import message_bytes

T = TypeVar("T")

MESSAGE_LIMIT: Final = 64 * 1024
HSM_MESSAGE_LIMIT: Final = 16 * 1024


class GCPSigning(GCPKeys):
    """What keys of purpose MAC and ASYMMETRIC_SIGN do."""

    async def mac(self, message: bytes, key_id: str, *, algorithm: SignatureAlgorithm | None = None) -> Signature:
        """Return the MAC of ``message`` (up to 64 KiB; 16 KiB in an HSM) under the newest enabled version.

        Raises:
            InvalidInputError: the message is too long, or the key is of another algorithm or purpose.
            KeyNotFoundError, KeyStateError: there is no such key, or no version of it is enabled.
        """
        name, content = self._config.find_name(key_id), message_bytes(message)
        _require_length(content, MESSAGE_LIMIT)

        async def make(version: KeyVersion) -> Signature:
            chosen = _algorithm(version, algorithm, is_mac=True)
            _require_length(content, HSM_MESSAGE_LIMIT if version.level in HSM_LEVELS else MESSAGE_LIMIT)
            messages = await self._kms.messages()
            version_name = name.version_name(version.number)
            answer = await self._kms.call(
                "mac", "mac_sign", messages.request("MacSignRequest", version_name, data=content)
            )
            require_intact(answer.verified_data_crc32c, "the checksum of the message did not arrive")
            value, used = messages.content(answer, "mac"), require_same(KeyName.parse(version_name), answer.name)
            return Signature(value, self._reference(used, key_id, used.version, KeyPurpose.MAC), chosen)

        return await self._with_version("mac", name, make)

    async def verify_mac(self, message: bytes, mac: Signature) -> None:
        """Return if ``mac`` is of ``message`` under the version it names.

        Raises:
            InvalidSignatureError: it is not. That it could not be checked is another error.
            InvalidInputError: it names no version, or is no MAC.
        """
        reference, content = mac.key_reference, message_bytes(message)
        name = self._config.find_name(reference.key_id)
        number = reference.key_version or name.version
        if not mac.algorithm.is_mac or number is None:
            raise InvalidInputError("what is verified here is a MAC that names the version of its key")
        wanted = KeyName.parse(name.version_name(number))
        is_of_its_length = len(mac.value) == hashlib.new(mac.algorithm.hash_name or "").digest_size
        if not is_of_its_length or len(content) > MESSAGE_LIMIT:
            raise InvalidSignatureError("the MAC is not of these bytes under this key")
        messages = await self._kms.messages()
        request = messages.request("MacVerifyRequest", name.version_name(number), data=content, mac=mac.value)
        answer = await self._kms.call("verify_mac", "mac_verify", request)
        require_intact(
            answer.verified_data_crc32c and answer.verified_mac_crc32c, "the checksums of the request did not arrive"
        )
        require_intact(answer.success == answer.verified_success_integrity, "it contradicts itself")
        require_same(wanted, answer.name)
        if not answer.success:
            raise InvalidSignatureError("the MAC is not of these bytes under this key")

    async def sign(self, message: bytes, key_id: str, *, algorithm: SignatureAlgorithm | None = None) -> Signature:
        """Return the signature of ``message`` by the newest enabled version.

        The message's hash is sent, so it may be of any length; with Ed25519, and to keys in an external key manager,
        the message itself goes, and may have 64 KiB.

        Raises:
            InvalidInputError: the message is too long, or the key is of another algorithm or purpose.
            KeyNotFoundError, KeyStateError: there is no such key, or no version of it is enabled.
        """
        name, content = self._config.find_name(key_id), message_bytes(message)

        async def make(version: KeyVersion) -> Signature:
            chosen = _algorithm(version, algorithm, is_mac=False)
            value, used = await self._sign(name.version_name(version.number), version, chosen, content)
            return Signature(value, self._reference(used, key_id, used.version, KeyPurpose.SIGN_VERIFY), chosen)

        return await self._with_version("sign", name, make)

    async def public_key(self, key_id: str, *, version: str | None = None) -> PublicKey:
        """Return the public key of ``version``, of the newest enabled one where it is None.

        Raises:
            InvalidInputError: the key is of another purpose, or of an algorithm that Keystead does not verify.
            KeyNotFoundError, KeyStateError: there is no such key or version, or it is not enabled.
        """
        name = self._config.find_name(key_id)
        if version is not None:
            name = KeyName.parse(name.version_name(version))

        async def get(chosen: KeyVersion) -> PublicKey:
            return await self._public_key(name, key_id, chosen.number)

        if name.version is not None:
            return await self._public_key(name, key_id, name.version)
        return await self._with_version("public_key", name, get)

    async def _sign(
        self, version_name: str, version: KeyVersion, algorithm: SignatureAlgorithm, message: bytes
    ) -> tuple[bytes, KeyName]:
        messages = await self._kms.messages()
        takes_message = algorithm.hash_name is None or version.level in EXTERNAL_LEVELS
        if takes_message:
            _require_length(message, MESSAGE_LIMIT)
            request = messages.request("AsymmetricSignRequest", version_name, data=message)
        else:
            request = messages.request("AsymmetricSignRequest", version_name)
            digest = hashlib.new(algorithm.hash_name or "", message).digest()
            request.digest = messages.service.Digest({algorithm.hash_name: digest})
            request.digest_crc32c = messages.crc32c(digest)
        answer = await self._kms.call("sign", "asymmetric_sign", request)
        arrived = answer.verified_data_crc32c if takes_message else answer.verified_digest_crc32c
        require_intact(arrived, "the checksum of the message did not arrive")
        return messages.content(answer, "signature"), require_same(KeyName.parse(version_name), answer.name)

    async def _public_key(self, name: KeyName, typed: str, number: str) -> PublicKey:
        from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_public_key

        messages = await self._kms.messages()
        request = messages.service.GetPublicKeyRequest(name=name.version_name(number))
        answer = await self._kms.call("public_key", "get_public_key", request)
        pem = answer.pem.encode()
        require_intact(answer.pem_crc32c == messages.crc32c(pem), "the public key and its checksum differ")
        used = require_same(KeyName.parse(request.name), answer.name)
        algorithm = _known(answer.algorithm.name, is_mac=False)
        try:
            der = load_pem_public_key(pem).public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        except ValueError:
            raise ProviderConnectionError("Cloud KMS answered with a public key that cannot be read") from None
        return PublicKey(der, self._reference(used, typed, used.version, KeyPurpose.SIGN_VERIFY), (algorithm,))

    async def _with_version(self, operation: str, name: KeyName, use: Callable[[KeyVersion], Awaitable[T]]) -> T:
        """Use the chosen version; where it went out of use since it was chosen, choose again, once."""
        version, is_remembered = await self._choose_version(operation, name)
        try:
            return await use(version)
        except KMSError as error:
            if not is_about_the_version(error):
                raise
            self._forget_choice(name)
            if not is_remembered:
                raise
        version, _ = await self._choose_version(operation, name)
        return await use(version)


def _algorithm(version: KeyVersion, wanted: SignatureAlgorithm | None, *, is_mac: bool) -> SignatureAlgorithm:
    algorithm = _known(version.algorithm, is_mac=is_mac)
    if wanted is not None and wanted is not algorithm:
        raise InvalidInputError(f"a key of Cloud KMS has one algorithm, and this one's is {algorithm}, not {wanted}")
    return algorithm


def _known(name: str, *, is_mac: bool) -> SignatureAlgorithm:
    algorithm = ALGORITHMS.get(name)
    if algorithm is None or algorithm.is_mac is not is_mac:
        wanted = ", ".join(each for each, ours in ALGORITHMS.items() if ours.is_mac is is_mac)
        raise InvalidInputError(f"the key's algorithm is {name}; {'MACs are made' if is_mac else 'signed'} by {wanted}")
    return algorithm


def _require_length(message: bytes, limit: int) -> None:
    if len(message) > limit:
        raise InvalidInputError(
            f"Cloud KMS takes messages of up to {limit // 1024} KiB under this key; pass the message's hash instead"
        )
