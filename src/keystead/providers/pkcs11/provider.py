"""Keys in a hardware token, or a software one, behind its vendor's PKCS#11 module.

URI (RFC 7512): ``pkcs11:token=kms;object=app?module-path=/usr/lib/softhsm/libsofthsm2.so&pin-source=file:/run/pin``.
In front of the question mark: token, serial, manufacturer, model, object, id, type. Behind it: module-path, pin-source,
allow_group_read, allow_extractable. A key id is a label (``app``), or ``object=app;id=%01`` for one version of it.

Credentials: the user PIN, from ``pin=`` (text or function), ``pin_file=`` or ``pin-source``; never in a URI. The module
is named by ``module=``, ``module-path`` or the variable ``PKCS11_MODULE_PATH``.

What a key's attributes must permit: CKA_ENCRYPT and CKA_DECRYPT (by CKM_AES_GCM), or CKA_WRAP and CKA_UNWRAP (by
CKM_AES_KEY_WRAP), for ``encrypt``, ``generate_data_key`` and ``encrypt_batch``; CKA_DECRYPT or CKA_UNWRAP for
``decrypt``; CKA_SIGN for ``mac``, ``sign`` and their batches; CKA_VERIFY or CKA_SIGN for ``verify_mac``. ``rotate_key``
needs a token that the user may write to. ``public_key`` needs the public object. RSA keys do not encrypt here.

Size limits: 64 KiB under CKM_AES_GCM, 4096 bytes under CKM_AES_KEY_WRAP; 64 KiB for HMAC and Ed25519, none for
other signatures. One thread works in each module, for all providers of the process.
Format: docs/spec/pkcs11-wrap-v1.md.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta

from keystead.crypto.context import encode_context
from keystead.errors import DecryptionError, InvalidInputError, KeyNotFoundError
from keystead.model import (
    DataKeyPair,
    EncryptedData,
    KeyDescription,
    KeyPurpose,
    KeyReference,
    KeyState,
    RotationPolicy,
    SecretBytes,
)
from keystead.providers.inputs import data_key_size, recorded_key, require_plaintext
from keystead.providers.pkcs11 import cipher as pkcs11_cipher
from keystead.providers.pkcs11 import keys as pkcs11_keys
from keystead.providers.pkcs11.config import KeyName, Pkcs11KMSConfig, config_from_uri
from keystead.providers.pkcs11.format import FAILED, MAX_GCM_PLAINTEXT, parse_ciphertext
from keystead.providers.pkcs11.signatures import algorithms_of
from keystead.providers.pkcs11.signing import SignsInToken
from keystead.providers.pkcs11.token import OpenToken
from keystead.providers.uri import ProviderSettings, ProviderUri

__all__ = ["Pkcs11KMSConfig", "Pkcs11KMSProvider"]


class Pkcs11KMSProvider(SignsInToken):
    """The keys of one token. Construction opens nothing; the first call loads the module and logs in.

    Providers of one process that use one module take turns in it, and those of one token share its login. A wrong PIN
    is tried once. While the token is away, calls fail as ``ProviderConnectionError``; when it is back they work again.
    A child of a fork initializes the module for itself and logs in anew.

    Raises:
        MissingDependencyError: python-pkcs11 is not installed.
        ConfigurationError: no module is named.
    """

    @classmethod
    def from_uri(cls, uri: ProviderUri, settings: ProviderSettings) -> tuple[Pkcs11KMSProvider, str | None]:
        """Return the provider that a ``pkcs11:`` URI names, and its default key id, if any.

        Raises:
            ConfigurationError: a URI of another form, or one that carries a PIN.
        """
        config, key_id = config_from_uri(uri, settings.folder, settings.deadline_s)
        provider = cls(config, environ=settings.environ, random=settings.random, clock=settings.clock)
        return provider, key_id

    @property
    def provider_name(self) -> str:
        """The provider's kind: ``pkcs11``."""
        return pkcs11_keys.PROVIDER

    async def encrypt(
        self, plaintext: bytes, key_id: str, *, context: Mapping[str, str] | None = None
    ) -> EncryptedData:
        """Encrypt up to 64 KiB (4096 bytes under a wrapping key) under the newest version of ``key_id``.

        Raises:
            InvalidInputError: ``plaintext`` is not bytes or too long, key id or context cannot be encoded, or the key
                is no AES key.
            KeyNotFoundError: the token has no such key.
            KeyStateError: the key is disabled, could leave the token, or has encrypted as much as it may.
            EncryptionError: the token does not decrypt what it encrypted, or does not bind the context.
            ProviderConnectionError: the token is away, busy or failing.
            ProviderAuthError: it refused the login.
        """
        return (await self.encrypt_batch([plaintext], key_id, context=context))[0]

    async def encrypt_batch(
        self, plaintexts: Sequence[bytes], key_id: str, *, context: Mapping[str, str] | None = None
    ) -> list[EncryptedData]:
        """Encrypt each plaintext as ``encrypt`` does, in few turns; order kept."""
        name = KeyName.parse(key_id)
        encode_context(context)
        contents = [_content(plaintext) for plaintext in plaintexts]

        def job(token: OpenToken, part: Sequence[bytes]) -> list[EncryptedData]:
            version = pkcs11_keys.newest_version(token, name, KeyPurpose.ENCRYPT_DECRYPT)
            pkcs11_keys.require_protected(version, allow_extractable=self._allow_extractable)
            reference = version.reference(key_id)
            sealed = [
                pkcs11_cipher.seal(token, version, each, context, random=self._random, limit=self._limit)
                for each in part
            ]
            now = self._clock.now()
            return [
                EncryptedData(blob, reference, header.mechanism.algorithm, now, context or {})
                for header, blob in sealed
            ]

        return await self._in_parts("encrypt", contents, job)

    async def decrypt(self, encrypted: EncryptedData, *, context: Mapping[str, str] | None = None) -> bytes:
        """Return the plaintext. ``context`` None means the one in ``encrypted``.

        Raises:
            DecryptionError: another key or context, or altered bytes.
            KeyNotFoundError: the token has no such key, or no longer the version that the record names.
            KeyStateError: the key is disabled.
            ProviderConnectionError, ProviderAuthError: as ``encrypt``.
        """
        header, body = parse_ciphertext(encrypted.ciphertext)
        if encrypted.algorithm != header.mechanism.algorithm:
            raise DecryptionError(FAILED)
        reference = encrypted.key_reference
        name = recorded_key(encrypted, KeyName.parse)
        bound = encrypted.context if context is None else context
        encode_context(bound)  # one that cannot be encoded is nobody's ciphertext

        def job(token: OpenToken) -> bytes:
            version = pkcs11_keys.find_version(token, name, header.key_id, KeyPurpose.ENCRYPT_DECRYPT)
            if version is None:
                raise _no_version(header.key_id, reference)
            return pkcs11_cipher.unseal(token, version, header, body, bound, random=self._random)

        return await self._turn("decrypt", job)

    async def generate_data_key(
        self, key_id: str, *, context: Mapping[str, str] | None = None, key_spec: str = "AES_256"
    ) -> DataKeyPair:
        """Draw a data key in this process and encrypt it under ``key_id``; ``key_spec`` is AES_128 or AES_256.

        Raises:
            InvalidInputError: another ``key_spec``; otherwise as ``encrypt``.
        """
        plaintext = SecretBytes(self._random(data_key_size(key_spec)))
        encrypted = await self.encrypt(plaintext, key_id, context=context)
        return DataKeyPair(plaintext, encrypted, encrypted.key_reference)

    async def describe(self, key_id: str) -> KeyDescription:
        """Return state and id of the newest version, and what it signs with. PKCS#11 tells no times.

        Raises:
            KeyNotFoundError, KeyStateError, InvalidInputError: no such key, or objects that are not one key's versions.
            ProviderConnectionError, ProviderAuthError: as ``encrypt``.
        """
        name = KeyName.parse(key_id)

        def job(token: OpenToken) -> KeyDescription:
            newest = pkcs11_keys.list_versions(token, name)[-1]
            reference = newest.reference(key_id)
            state = KeyState.ENABLED if _is_enabled(newest) else KeyState.DISABLED
            return KeyDescription(
                reference, state, current_version=reference.key_version, algorithms=algorithms_of(token, newest)
            )

        return await self._turn("describe", job)

    async def rotate_key(self, key_id: str) -> KeyReference:
        """Make a version of the same kind and use that never leaves the token, newer than all others; return it.

        AES keys get 256 bits. Key pairs get both halves.

        Raises:
            KeyNotFoundError, KeyStateError: there is nothing to make a next version of.
            KeyRotationError: the token refused; every earlier version is still there.
            InvalidInputError: the key id names one version, or the key has no label.
            ProviderConnectionError, ProviderAuthError: as ``encrypt``.
        """
        name = KeyName.parse(key_id)
        if name.label is None or name.key_id is not None:
            raise InvalidInputError("a version is made of a key that is named by its label alone")

        def job(token: OpenToken) -> KeyReference:
            newest = pkcs11_keys.list_versions(token, name)[-1]
            made = pkcs11_keys.make_next(token, newest, self._random)
            version = pkcs11_keys.find_version(token, name, made, newest.purpose)
            if version is None:
                raise KeyNotFoundError(
                    "the token made a version and does not show it; ask describe which is the newest"
                )
            return version.reference(key_id)

        return await self._turn("rotate_key", job)

    async def get_rotation_policy(self, key_id: str) -> RotationPolicy:
        """Return a disabled policy: a token rotates when told, and does not say when it last did."""
        await self.describe(key_id)
        return RotationPolicy(enabled=False, rotation_period=timedelta(0))


def _content(plaintext: bytes) -> bytes:
    require_plaintext(plaintext)
    if len(plaintext) > MAX_GCM_PLAINTEXT:
        raise InvalidInputError(
            f"a token encrypts at most {MAX_GCM_PLAINTEXT} bytes here; encrypt longer data under a data key "
            "(km.local_encrypt, or generate_data_key)"
        )
    return SecretBytes(plaintext)


def _is_enabled(version: pkcs11_keys.Version) -> bool:
    if version.purpose is not KeyPurpose.ENCRYPT_DECRYPT:
        return "SIGN" in version.uses
    return {"ENCRYPT", "DECRYPT"} <= version.uses or {"WRAP", "UNWRAP"} <= version.uses


def _no_version(key_id: bytes, reference: KeyReference) -> DecryptionError | KeyNotFoundError:
    """Return the error for a ciphertext whose version is not there; one that the record names too was there once."""
    if reference.key_version == key_id.hex():
        return KeyNotFoundError(
            f"the token no longer has the version {key_id.hex()} of {reference.key_id!r}, which encrypted this; "
            "restore it from the token's backup"
        )
    return DecryptionError(FAILED)
