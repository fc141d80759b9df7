"""The PKCS#11 provider's MACs, signatures and public keys, and what it may do with a key."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from keystead.errors import InvalidInputError, InvalidSignatureError, KeyNotFoundError
from keystead.model import KeyPurpose, PublicKey, Signature, SignatureAlgorithm
from keystead.providers.inputs import message_bytes
from keystead.providers.pkcs11 import keys as pkcs11_keys
from keystead.providers.pkcs11 import signatures as pkcs11_signatures
from keystead.providers.pkcs11.access import TokenAccess
from keystead.providers.pkcs11.config import KeyName
from keystead.providers.pkcs11.keys import Version
from keystead.providers.pkcs11.token import OpenToken


class SignsInToken(TokenAccess):
    """The half of ``Pkcs11KMSProvider`` that makes and checks MACs and signatures."""

    async def mac(self, message: bytes, key_id: str, *, algorithm: SignatureAlgorithm | None = None) -> Signature:
        """Return the HMAC of up to 64 KiB under the newest version; by default of the longest hash the key allows.

        Raises:
            InvalidInputError: another kind of key or algorithm, or a message that is too long.
            KeyNotFoundError, KeyStateError: no such key; it is disabled, too short, or could leave the token.
            ProviderConnectionError: the token is away, busy or failing.
            ProviderAuthError: it refused the login.
        """
        return (await self.mac_batch([message], key_id, algorithm=algorithm))[0]

    async def mac_batch(
        self, messages: Sequence[bytes], key_id: str, *, algorithm: SignatureAlgorithm | None = None
    ) -> list[Signature]:
        """Return the MAC of each message as ``mac`` does, in few turns; order kept."""
        return await self._make("mac", KeyPurpose.MAC, messages, key_id, algorithm)

    async def verify_mac(self, message: bytes, mac: Signature) -> None:
        """Return if ``mac`` is of ``message`` under the version it names.

        Raises:
            InvalidSignatureError: it is not.
            KeyNotFoundError: the token has no such key or version.
            KeyStateError: the key is disabled.
            ProviderConnectionError, ProviderAuthError: as ``mac``.
        """
        if not mac.algorithm.is_mac:
            raise InvalidSignatureError(pkcs11_signatures.INVALID_MAC)
        name = KeyName.parse(mac.key_reference.key_id)
        content, version_text = message_bytes(message), mac.key_reference.key_version
        if len(content) > pkcs11_signatures.MAX_MESSAGE:
            raise InvalidSignatureError(pkcs11_signatures.INVALID_MAC)

        def job(token: OpenToken) -> None:
            version = _version(token, name, version_text, KeyPurpose.MAC)
            pkcs11_signatures.check_mac(token, version, mac.algorithm, content, mac.value)

        await self._turn("verify_mac", job)

    async def sign(self, message: bytes, key_id: str, *, algorithm: SignatureAlgorithm | None = None) -> Signature:
        """Return the signature of ``message`` under the newest version: ECDSA in DER, PSS with a salt as the hash long.

        Raises:
            InvalidInputError: another kind of key or algorithm, or over 64 KiB for Ed25519.
            KeyNotFoundError, KeyStateError, ProviderConnectionError, ProviderAuthError: as ``mac``.
        """
        return (await self.sign_batch([message], key_id, algorithm=algorithm))[0]

    async def sign_batch(
        self, messages: Sequence[bytes], key_id: str, *, algorithm: SignatureAlgorithm | None = None
    ) -> list[Signature]:
        """Return the signature of each message as ``sign`` does, in few turns; order kept."""
        return await self._make("sign", KeyPurpose.SIGN_VERIFY, messages, key_id, algorithm)

    async def public_key(self, key_id: str, *, version: str | None = None) -> PublicKey:
        """Return the public key of a version (its ``CKA_ID`` in hexadecimal), of the newest one where it is None.

        Raises:
            KeyNotFoundError: the token has no such key or version, or not its public object.
            InvalidInputError: it is no signing key.
            SigningError: the public object has a form that cannot be read.
            ProviderConnectionError, ProviderAuthError: as ``mac``.
        """
        name = KeyName.parse(key_id)

        def job(token: OpenToken) -> PublicKey:
            found = _version(token, name, version, KeyPurpose.SIGN_VERIFY)
            der = pkcs11_signatures.public_der(token, found)
            return PublicKey(der, found.reference(key_id), pkcs11_signatures.algorithms_of(token, found))

        return await self._turn("public_key", job)

    async def check_permissions(self, key_id: str, *, context: Mapping[str, str] | None = None) -> Mapping[str, bool]:
        """Return what attributes of the newest version and the token permit in any context; errors as ``describe``."""
        name = KeyName.parse(key_id)

        def job(token: OpenToken) -> Mapping[str, bool]:
            newest = pkcs11_keys.list_versions(token, name)[-1]
            is_safe = newest.is_protected or self._allow_extractable
            is_writable = not token.token.flags & token.p11.TokenFlag.WRITE_PROTECTED
            return {**_permitted(newest, is_safe=is_safe), "rotate_key": bool(is_writable)}

        return await self._turn("check_permissions", job)

    async def is_extractable(self, key_id: str) -> bool:
        """Return whether a version of the key could leave the token in clear; errors as ``describe``."""
        name = KeyName.parse(key_id)

        def job(token: OpenToken) -> bool:
            return not all(version.is_protected for version in pkcs11_keys.list_versions(token, name))

        return await self._turn("is_extractable", job)

    async def _make(
        self,
        operation: str,
        purpose: KeyPurpose,
        messages: Sequence[bytes],
        key_id: str,
        algorithm: SignatureAlgorithm | None,
    ) -> list[Signature]:
        name = KeyName.parse(key_id)
        if algorithm is not None and algorithm.is_mac is not (purpose is KeyPurpose.MAC):
            raise InvalidInputError(f"{algorithm} is not what {operation} makes")
        contents = [message_bytes(message) for message in messages]

        def job(token: OpenToken, part: Sequence[bytes]) -> list[Signature]:
            version = pkcs11_keys.newest_version(token, name, purpose)
            pkcs11_keys.require_protected(version, allow_extractable=self._allow_extractable)
            chosen = pkcs11_signatures.choose_algorithm(token, version, algorithm)
            reference = version.reference(key_id)
            values = [pkcs11_signatures.make(token, version, chosen, each) for each in part]
            return [Signature(value, reference, chosen) for value in values]

        return await self._in_parts(operation, contents, job)


def _version(token: OpenToken, name: KeyName, text: str | None, purpose: KeyPurpose) -> Version:
    """Return the version whose id is ``text`` in hexadecimal, the newest one where it is None."""
    if text is None:
        return pkcs11_keys.newest_version(token, name, purpose)
    try:
        found = pkcs11_keys.find_version(token, name, bytes.fromhex(text), purpose)
    except ValueError:
        found = None
    if found is None:
        raise KeyNotFoundError(f"the token has no version of {str(name)!r} with that CKA_ID")
    return found


def _permitted(version: Version, *, is_safe: bool) -> dict[str, bool]:
    uses = version.uses
    if version.purpose is KeyPurpose.MAC:
        return {"mac": is_safe and "SIGN" in uses, "verify_mac": bool(uses & {"SIGN", "VERIFY"})}
    if version.purpose is KeyPurpose.SIGN_VERIFY:
        return {"sign": is_safe and "SIGN" in uses}
    encrypts = is_safe and ({"ENCRYPT", "DECRYPT"} <= uses or {"WRAP", "UNWRAP"} <= uses)
    return {"encrypt": encrypts, "generate_data_key": encrypts, "decrypt": bool(uses & {"DECRYPT", "UNWRAP"})}
