"""Google Cloud KMS.

URI: ``gcpkms://projects/PROJECT/locations/LOCATION/keyRings/RING/cryptoKeys/KEY``, as in
``gcpkms://projects/shop/locations/europe-west1/keyRings/prod/cryptoKeys/keystead``. Options: ``?endpoint=host:port``,
``?ca_file=/path/to/ca.pem``, ``?transport=rest``. Credentials: Application Default Credentials, or a credentials file
or object in ``GCPKMSConfig``.

Permissions, on the key: ``encrypt`` and ``generate_data_key`` cloudkms.cryptoKeyVersions.useToEncrypt (and
cloudkms.cryptoKeys.get for more than 8 KiB), ``decrypt`` .useToDecrypt, ``describe`` cloudkms.cryptoKeys.get (and
cloudkms.cryptoKeyVersions.list for keys that sign or make MACs), ``get_rotation_policy`` cloudkms.cryptoKeys.get,
``rotate_key`` cloudkms.cryptoKeys.get and .update, cloudkms.cryptoKeyVersions.list, .get and .create, ``mac`` and
``sign`` cloudkms.cryptoKeyVersions.useToSign and .list, ``verify_mac`` .useToVerify, ``public_key`` .viewPublicKey and
.list; a key id that names its version needs .get instead of .list. ``check_permissions`` needs none.

Size limits: plaintext 64 KiB and encoded context 64 KiB; in an HSM 8 KiB for both together. Messages for MACs and
Ed25519 64 KiB, in an HSM 16 KiB for MACs. Checksums (CRC32C) go with every request and are compared with every answer.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Final, NoReturn, SupportsIndex

from keystead.crypto.context import encode_context
from keystead.errors import DecryptionError, InvalidInputError, ProviderAuthError
from keystead.model import DataKeyPair, EncryptedData, SecretBytes
from keystead.ports import Clock, Random
from keystead.providers.gcp.config import GCPKMSConfig, KeyName, config_from_uri
from keystead.providers.gcp.keys import HSM_LEVELS, PROVIDER, require_same
from keystead.providers.gcp.lifecycle import GCPLifecycle
from keystead.providers.gcp.messages import HiddenRequest, require_intact
from keystead.providers.gcp.signing import GCPSigning
from keystead.providers.inputs import data_key_size, recorded_key, require_plaintext
from keystead.providers.uri import ProviderSettings, ProviderUri
from keystead.runtime.clock import SystemClock
from keystead.runtime.single_flight import SingleFlight

ALGORITHM: Final = "GOOGLE_SYMMETRIC_ENCRYPTION"
PLAINTEXT_LIMIT: Final = 64 * 1024
CONTEXT_LIMIT: Final = 64 * 1024
CIPHERTEXT_LIMIT: Final = 10 * PLAINTEXT_LIMIT
"""No ciphertext of the service comes near it: what is longer is not sent to be refused."""
HSM_LIMIT: Final = 8 * 1024
"""For plaintext and context together; up to it, every key takes them, and nothing has to be asked."""

_FAILED: Final = "decryption failed: wrong key, wrong context or altered bytes"
_MOST_LEVELS: Final = 1024


class GCPKMSProvider(GCPSigning, GCPLifecycle):
    """Cloud KMS. Construction loads nothing of the SDK, reads no credentials and connects to nothing.

    Raises:
        MissingDependencyError: google-cloud-kms or google-crc32c is not installed.
    """

    def __init__(
        self, config: GCPKMSConfig | None = None, *, random: Random = os.urandom, clock: Clock | None = None
    ) -> None:
        super().__init__(config or GCPKMSConfig(), clock or SystemClock())
        self._random = random
        self._levels: dict[str, str] = {}
        self._readings: SingleFlight[str] = SingleFlight()

    def __repr__(self) -> str:
        return f"GCPKMSProvider({self._config.address})"

    def __reduce_ex__(self, protocol: SupportsIndex) -> NoReturn:
        raise TypeError("GCPKMSProvider holds connections and cannot be pickled or copied; make one in each process")

    @classmethod
    def from_uri(cls, uri: ProviderUri, settings: ProviderSettings) -> tuple[GCPKMSProvider, str]:
        """Return the provider a ``gcpkms:`` URI names, and its default key id.

        Raises:
            ConfigurationError: a URI of another form.
            MissingDependencyError: the extra is not installed.
        """
        config, key_id = config_from_uri(uri, settings.folder)
        return cls(config, random=settings.random, clock=settings.clock), key_id

    @property
    def provider_name(self) -> str:
        """The provider's kind: ``gcp``."""
        return PROVIDER

    async def encrypt(
        self, plaintext: bytes, key_id: str, *, context: Mapping[str, str] | None = None
    ) -> EncryptedData:
        """Encrypt up to 64 KiB (8 KiB in an HSM) under the primary version, or under the version ``key_id`` names.

        Raises:
            InvalidInputError: not bytes, too long, a malformed key id or context, or a key of another purpose.
            KeyNotFoundError, KeyStateError: there is no such key, or the version is not enabled.
            ProviderAuthError, ProviderConnectionError: denied; unreachable, throttled, or the answer was altered.
        """
        require_plaintext(plaintext)
        name, content, aad = self._config.find_name(key_id), SecretBytes(plaintext), encode_context(context)
        await self._require_size(name, content, aad)
        messages = await self._kms.messages()
        request = HiddenRequest(
            messages.request(
                "EncryptRequest",
                name.key if name.version is None else name.version_name(name.version),
                plaintext=content,
                additional_authenticated_data=aad,
            )
        )
        answer = await self._kms.call("encrypt", "encrypt", request)
        require_intact(
            answer.verified_plaintext_crc32c and answer.verified_additional_authenticated_data_crc32c,
            "the checksums of the request did not arrive",
        )
        ciphertext = messages.content(answer, "ciphertext")
        used = require_same(name, answer.name)
        self._remember_level(name, answer.protection_level.name)
        return EncryptedData(
            ciphertext=ciphertext,
            key_reference=self._reference(used, key_id, used.version),
            algorithm=ALGORITHM,
            encrypted_at=self._clock.now(),
            context=context or {},
        )

    async def decrypt(self, encrypted: EncryptedData, *, context: Mapping[str, str] | None = None) -> bytes:
        """Return the plaintext. ``context`` None means the one in ``encrypted``.

        Raises:
            DecryptionError: another key or context, or altered bytes.
            KeyNotFoundError, KeyStateError: there is no such key, or the version that encrypted is not enabled.
            ProviderAuthError, ProviderConnectionError: denied; unreachable, throttled, or the answer was altered.
        """
        return await self._open(encrypted, encode_context(encrypted.context if context is None else context))

    async def decrypt_foreign(self, encrypted: EncryptedData) -> bytes:
        """Return the plaintext of data that FraiseQL encrypted under this key, bound to its context's JSON.

        Raises:
            DecryptionError: another key or context, or altered bytes; otherwise as ``decrypt``.
        """
        from keystead.crypto.legacy import fraiseql_aad

        return await self._open(encrypted, fraiseql_aad("gcp", encrypted.context))

    async def generate_data_key(
        self, key_id: str, *, context: Mapping[str, str] | None = None, key_spec: str = "AES_256"
    ) -> DataKeyPair:
        """Draw a data key here, as Cloud KMS has no call for it, and encrypt it; AES_128 or AES_256.

        Raises:
            InvalidInputError: another ``key_spec``; otherwise as ``encrypt``.
        """
        plaintext = SecretBytes(self._random(data_key_size(key_spec)))
        encrypted = await self.encrypt(plaintext, key_id, context=context)
        return DataKeyPair(plaintext, encrypted, encrypted.key_reference)

    async def aclose(self) -> None:
        """Close every connection; idempotent. Afterwards everything raises ``SystemShutdownError``."""
        await self._kms.aclose()

    async def _open(self, encrypted: EncryptedData, aad: bytes) -> bytes:
        name, ciphertext = recorded_key(encrypted, self._config.find_name), encrypted.ciphertext
        is_possible = 0 < len(ciphertext) <= CIPHERTEXT_LIMIT and len(aad) <= CONTEXT_LIMIT
        if encrypted.algorithm != ALGORITHM or not is_possible:
            raise DecryptionError(_FAILED)
        messages = await self._kms.messages()
        request = messages.request("DecryptRequest", name.key, ciphertext=ciphertext, additional_authenticated_data=aad)
        answer = await self._kms.call("decrypt", "decrypt", request)
        # The answer has no flags for the request's checksums: the service refuses a request whose do not fit.
        return messages.content(answer, "plaintext")

    async def _require_size(self, name: KeyName, plaintext: bytes, aad: bytes) -> None:
        if len(aad) > CONTEXT_LIMIT:
            raise InvalidInputError("Cloud KMS binds contexts of up to 64 KiB")
        if len(plaintext) > PLAINTEXT_LIMIT:
            raise _too_long("64 KiB")
        if len(plaintext) + len(aad) > HSM_LIMIT and await self._level(name) in HSM_LEVELS:
            raise _too_long("8 KiB, the context included, in an HSM")

    async def _level(self, name: KeyName) -> str:
        """Return a key's protection level, or nothing where it may not be asked for: the service then decides."""
        known = self._levels.get(name.key)
        return known if known is not None else await self._readings.run(name.key, lambda: self._read_level(name))

    async def _read_level(self, name: KeyName) -> str:
        try:
            key = await self._get_key("encrypt", name)
        except ProviderAuthError:
            return ""
        level = key.primary.protection_level if "primary" in key else key.version_template.protection_level
        self._remember_level(name, level.name)
        return str(level.name)

    def _remember_level(self, name: KeyName, level: str) -> None:
        if len(self._levels) >= _MOST_LEVELS:
            self._levels.clear()
        self._levels[name.key] = level


def _too_long(limit: str) -> InvalidInputError:
    return InvalidInputError(
        f"Cloud KMS encrypts up to {limit}; encrypt longer values with km.local_encrypt, or under a key from "
        "generate_data_key"
    )
