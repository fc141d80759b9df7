"""Keys of Cloud KMS and their versions: names, states, algorithms, and which version is used."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from keystead.errors import (
    InvalidInputError,
    KeyNotFoundError,
    KeyStateError,
    ProviderConnectionError,
)
from keystead.model import KeyPurpose, KeyReference, KeyState, SignatureAlgorithm
from keystead.ports import Clock
from keystead.providers.gcp.config import GCPKMSConfig, KeyName
from keystead.providers.gcp.connection import CloudKms
from keystead.providers.gcp.messages import require_intact
from keystead.runtime.single_flight import SingleFlight

PROVIDER: Final = "gcp"
HSM_LEVELS: Final = frozenset({"HSM", "HSM_SINGLE_TENANT"})
EXTERNAL_LEVELS: Final = frozenset({"EXTERNAL", "EXTERNAL_VPC"})
PURPOSES: Final[Mapping[str, KeyPurpose]] = {
    "ENCRYPT_DECRYPT": KeyPurpose.ENCRYPT_DECRYPT,
    "MAC": KeyPurpose.MAC,
    "ASYMMETRIC_SIGN": KeyPurpose.SIGN_VERIFY,
}
STATES: Final[Mapping[str, KeyState]] = {
    "ENABLED": KeyState.ENABLED,
    "DESTROY_SCHEDULED": KeyState.PENDING_DELETION,
    "PENDING_EXTERNAL_DESTRUCTION": KeyState.PENDING_DELETION,
    "DESTROYED": KeyState.DESTROYED,
    "EXTERNAL_DESTRUCTION_FAILED": KeyState.DESTROYED,
}
"""Every other state (disabled, pending, failed) does nothing, and may come back."""
ALGORITHMS: Final[Mapping[str, SignatureAlgorithm]] = {
    "HMAC_SHA256": SignatureAlgorithm.HMAC_SHA_256,
    "HMAC_SHA384": SignatureAlgorithm.HMAC_SHA_384,
    "HMAC_SHA512": SignatureAlgorithm.HMAC_SHA_512,
    "EC_SIGN_ED25519": SignatureAlgorithm.ED25519,
    "EC_SIGN_P256_SHA256": SignatureAlgorithm.ECDSA_SHA_256,
    "EC_SIGN_P384_SHA384": SignatureAlgorithm.ECDSA_SHA_384,
    "RSA_SIGN_PSS_2048_SHA256": SignatureAlgorithm.RSA_PSS_SHA_256,
    "RSA_SIGN_PSS_3072_SHA256": SignatureAlgorithm.RSA_PSS_SHA_256,
    "RSA_SIGN_PSS_4096_SHA256": SignatureAlgorithm.RSA_PSS_SHA_256,
    "RSA_SIGN_PSS_4096_SHA512": SignatureAlgorithm.RSA_PSS_SHA_512,
    "RSA_SIGN_PKCS1_2048_SHA256": SignatureAlgorithm.RSA_PKCS1_SHA_256,
    "RSA_SIGN_PKCS1_3072_SHA256": SignatureAlgorithm.RSA_PKCS1_SHA_256,
    "RSA_SIGN_PKCS1_4096_SHA256": SignatureAlgorithm.RSA_PKCS1_SHA_256,
    "RSA_SIGN_PKCS1_4096_SHA512": SignatureAlgorithm.RSA_PKCS1_SHA_512,
}
"""Not among ours: HMAC with SHA-1 or SHA-224, secp256k1, raw PKCS #1, and the post-quantum algorithms."""
REFRESH_S: Final = 300.0
"""How long the choice of the newest version is trusted; listing counts against a quota of 300 a minute."""

_MOST_REMEMBERED: Final = 1024
_PAGE_SIZE: Final = 100


@dataclass(frozen=True, slots=True)
class KeyVersion:
    """One version of a key as the service tells it; ``algorithm`` and ``level`` by the service's names."""

    number: str
    state: str
    algorithm: str
    level: str
    created_at: datetime | None

    @classmethod
    def read(cls, of: KeyName, message: Any) -> KeyVersion:
        """Read the SDK's ``CryptoKeyVersion``, which is one ``of`` a key, or the one that is named.

        Raises:
            ProviderConnectionError: it is another.
        """
        return cls(
            number=str(require_same(of, message.name).version),
            state=message.state.name,
            algorithm=message.algorithm.name,
            level=message.protection_level.name,
            created_at=moment(message.create_time),
        )

    @property
    def signature_algorithm(self) -> SignatureAlgorithm | None:
        """The algorithm by our name, if it makes MACs or signatures of a kind Keystead knows."""
        return ALGORITHMS.get(self.algorithm)


class GCPKeys:
    """What every operation of the provider stands on: the service, names, and the choice of versions."""

    def __init__(self, config: GCPKMSConfig, clock: Clock) -> None:
        self._config = config
        self._clock = clock
        self._kms = CloudKms(config)
        self._chosen: dict[str, tuple[float, KeyVersion]] = {}
        self._choices: SingleFlight[KeyVersion] = SingleFlight()

    async def _get_key(self, operation: str, name: KeyName) -> Any:
        messages = await self._kms.messages()
        request = messages.service.GetCryptoKeyRequest(name=name.key)
        key = await self._kms.call(operation, "get_crypto_key", request)
        require_intact(KeyName(name.key).find_in(key.name) is not None, "it is of another key")
        return key

    async def _get_version(self, operation: str, name: KeyName, number: str) -> KeyVersion:
        messages = await self._kms.messages()
        wanted = KeyName(name.key, number)
        request = messages.service.GetCryptoKeyVersionRequest(name=name.version_name(number))
        return KeyVersion.read(wanted, await self._kms.call(operation, "get_crypto_key_version", request))

    async def _list_versions(self, operation: str, name: KeyName, *, enabled: bool = False) -> list[KeyVersion]:
        """Return a key's versions, the newest first: by number, as version 10 is newer than version 9."""
        messages = await self._kms.messages()
        request = messages.service.ListCryptoKeyVersionsRequest(
            parent=name.key, page_size=_PAGE_SIZE, filter="state=ENABLED" if enabled else ""
        )
        found: list[KeyVersion] = []
        while True:
            page = await self._kms.call(operation, "list_crypto_key_versions", request)
            found += [KeyVersion.read(KeyName(name.key), each) for each in page.crypto_key_versions]
            if not page.next_page_token:
                return sorted(found, key=lambda version: int(version.number), reverse=True)
            request.page_token = page.next_page_token

    async def _choose_version(self, operation: str, name: KeyName) -> tuple[KeyVersion, bool]:
        """Return the version that is named, or else the newest enabled one; and whether that was remembered.

        Raises:
            KeyStateError: no version is enabled.
        """
        slot = name.version_name(name.version or "newest")
        now = self._clock.monotonic()
        if slot in self._chosen and now - self._chosen[slot][0] < REFRESH_S:
            return self._chosen[slot][1], True
        chosen = await self._choices.run(slot, lambda: self._ask_for_version(operation, name))
        if len(self._chosen) >= _MOST_REMEMBERED:
            self._chosen.clear()
        self._chosen[slot] = (now, chosen)
        return chosen, False

    async def _ask_for_version(self, operation: str, name: KeyName) -> KeyVersion:
        if name.version is not None:
            return await self._get_version(operation, name, name.version)
        enabled = await self._list_versions(operation, name, enabled=True)
        if not enabled:
            raise KeyStateError("the key has no version that is enabled")
        return enabled[0]

    def _forget_choice(self, name: KeyName) -> None:
        self._chosen.pop(name.version_name(name.version or "newest"), None)

    def _reference(
        self,
        name: KeyName,
        typed: str,
        version: str | None,
        purpose: KeyPurpose = KeyPurpose.ENCRYPT_DECRYPT,
        created_at: datetime | None = None,
    ) -> KeyReference:
        return KeyReference(
            provider=PROVIDER,
            key_id=name.key,
            key_alias=None if typed == name.key else typed,
            purpose=purpose,
            created_at=created_at,
            key_version=version,
        )


def purpose_of(key: Any) -> KeyPurpose:
    """Return a ``CryptoKey``'s purpose.

    Raises:
        InvalidInputError: it is one that Keystead has no use for.
    """
    purpose = PURPOSES.get(key.purpose.name)
    if purpose is None:
        raise InvalidInputError(
            f"the key's purpose is {key.purpose.name}; Keystead uses ENCRYPT_DECRYPT, MAC and ASYMMETRIC_SIGN"
        )
    return purpose


def require_same(asked: KeyName, answered: str) -> KeyName:
    """Return the key and version that an answer names, which are those that were asked for.

    Raises:
        ProviderConnectionError: they are others, or it names no version.
    """
    found = asked.find_in(answered)
    if found is None or found.version is None:
        raise ProviderConnectionError("an answer of Cloud KMS was altered on its way: it is of another key")
    return found


def is_about_the_version(error: Exception) -> bool:
    """Whether another version of the key may do what this one did not."""
    return isinstance(error, KeyStateError | KeyNotFoundError)


def moment(timestamp: Any) -> datetime | None:
    """Return a timestamp of the SDK as a plain aware datetime."""
    return None if not timestamp else datetime.fromisoformat(timestamp.isoformat()).astimezone(UTC)
