"""What happens to keys of Cloud KMS over time: description, rotation, its schedule, and who may do what."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any, Final

from keystead.errors import (
    InvalidInputError,
    KeyRotationError,
    KeyStateError,
    ProviderConnectionError,
    RotationNotSupportedError,
)
from keystead.model import KeyDescription, KeyPurpose, KeyReference, KeyState, RotationPolicy
from keystead.providers.gcp.config import KeyName
from keystead.providers.gcp.errors import PERMISSIONS
from keystead.providers.gcp.keys import (
    EXTERNAL_LEVELS,
    STATES,
    GCPKeys,
    KeyVersion,
    moment,
    purpose_of,
    require_same,
)
from keystead.providers.gcp.messages import require_intact

GENERATION_WAIT_S: Final = 6.0
"""How long a version that is being made is waited for, so that there is time left before the guard's deadline."""
_PENDING: Final = frozenset({"PENDING_GENERATION", "PENDING_IMPORT"})


class GCPLifecycle(GCPKeys):
    """Description and rotation of keys of every purpose that Keystead uses."""

    async def describe(self, key_id: str) -> KeyDescription:
        """Return state, version and algorithm: of the primary version, or of the newest one that is enabled.

        Raises:
            KeyNotFoundError: there is no such key.
            InvalidInputError: its purpose is one Keystead has no use for.
        """
        name = self._config.find_name(key_id)
        key = await self._get_key("describe", name)
        purpose = purpose_of(key)
        version = await self._current_version(name, key, purpose)
        created_at = moment(key.create_time)
        algorithm = None if version is None else version.signature_algorithm
        number = None if version is None else version.number
        return KeyDescription(
            key_reference=self._reference(KeyName(key.name), key_id, number, purpose, created_at),
            state=KeyState.DISABLED if version is None else STATES.get(version.state, KeyState.DISABLED),
            created_at=created_at,
            current_version=number,
            algorithms=() if algorithm is None else (algorithm,),
        )

    async def rotate_key(self, key_id: str) -> KeyReference:
        """Make a new version, and let it encrypt where the key encrypts.

        These are two calls. A version that is newer than the primary and usable, or about to be, is what a rotation
        left behind that got as far as the first: it is finished, and no further version is made. Encryptions may go on
        under the old primary for a minute, and for hours in exceptional cases, as Google documents.

        Raises:
            InvalidInputError: a version is named instead of a key.
            RotationNotSupportedError: the service cannot make the key's versions: they are imported, or external.
            KeyRotationError: the new version could not be made.
            ProviderConnectionError: it is still being made; rotating again goes on from there.
        """
        name = self._config.find_name(key_id)
        if name.version is not None:
            raise InvalidInputError("a key is rotated, not one of its versions; leave /cryptoKeyVersions/N out")
        key = await self._get_key("rotate_key", name)
        purpose = purpose_of(key)
        version = await self._begun_rotation(name, key, purpose) or await self._create_version(name, key)
        version = await self._wait_until_made(name, version)
        if purpose is KeyPurpose.ENCRYPT_DECRYPT:
            await self._set_primary(name, version)
        self._forget_choice(name)
        return self._reference(KeyName(key.name), key_id, version.number, purpose, version.created_at)

    async def get_rotation_policy(self, key_id: str) -> RotationPolicy:
        """Return the service's own schedule; keys that make MACs or sign have none."""
        name = self._config.find_name(key_id)
        key = await self._get_key("get_rotation_policy", name)
        primary = KeyVersion.read(KeyName(name.key), key.primary) if "primary" in key else None
        # A duration of the SDK is a timedelta: of 90 days, and of no seconds.
        period: timedelta | None = key.rotation_period if "rotation_period" in key else None
        return RotationPolicy(
            enabled=period is not None,
            rotation_period=period or timedelta(0),
            last_rotation=None if primary is None or primary.number == "1" else primary.created_at,
            next_rotation=moment(key.next_rotation_time),
        )

    async def check_permissions(self, key_id: str, *, context: Mapping[str, str] | None = None) -> Mapping[str, bool]:
        """Return which operations these credentials may do with the key, under any context; asks, and does nothing.

        A key that does not exist allows nothing. Which of the operations the key's purpose allows is another matter.
        """
        name = self._config.find_name(key_id)
        wanted = sorted({permission for needed in PERMISSIONS.values() for permission in needed})
        # Of a service that Cloud KMS shares with others: the SDK takes its request as a dict.
        answer = await self._kms.call(
            "check_permissions", "test_iam_permissions", {"resource": name.key, "permissions": wanted}
        )
        allowed = set(answer.permissions)
        return {operation: allowed.issuperset(needed) for operation, needed in PERMISSIONS.items()}

    async def _current_version(self, name: KeyName, key: Any, purpose: KeyPurpose) -> KeyVersion | None:
        if name.version is not None:
            return await self._get_version("describe", name, name.version)
        if purpose is KeyPurpose.ENCRYPT_DECRYPT:
            return KeyVersion.read(name, key.primary) if "primary" in key else None
        versions = await self._list_versions("describe", name)
        return next((each for each in versions if each.state == "ENABLED"), versions[0] if versions else None)

    async def _begun_rotation(self, name: KeyName, key: Any, purpose: KeyPurpose) -> KeyVersion | None:
        """Return the version of a rotation that was begun and not finished."""
        versions = await self._list_versions("rotate_key", name)
        if purpose is KeyPurpose.ENCRYPT_DECRYPT:
            primary = int(KeyVersion.read(name, key.primary).number) if "primary" in key else 0
            usable = [each for each in versions if each.state == "ENABLED" or each.state in _PENDING]
            return next((each for each in usable if int(each.number) > primary), None)
        # Once such a version is made it is in use: what can be unfinished is its making.
        return versions[0] if versions and versions[0].state in _PENDING else None

    async def _create_version(self, name: KeyName, key: Any) -> KeyVersion:
        if key.import_only or key.version_template.protection_level.name in EXTERNAL_LEVELS:
            raise RotationNotSupportedError(
                "the key's versions are imported, or live in an external key manager: make the next one there or with "
                "gcloud kms keys versions, and rotate again to let it encrypt"
            )
        messages = await self._kms.messages()
        request = messages.service.CreateCryptoKeyVersionRequest(parent=name.key)
        answer = await self._kms.call("rotate_key", "create_crypto_key_version", request)
        return KeyVersion.read(name, answer)

    async def _wait_until_made(self, name: KeyName, version: KeyVersion) -> KeyVersion:
        give_up_at, pause_s = self._clock.monotonic() + GENERATION_WAIT_S, 0.1
        while version.state in _PENDING:
            if self._clock.monotonic() + pause_s > give_up_at:
                raise ProviderConnectionError(
                    f"version {version.number} of the key is still being made; rotating again goes on from there"
                )
            await self._clock.sleep(pause_s)
            pause_s = min(2 * pause_s, 1.0)
            version = await self._get_version("rotate_key", name, version.number)
        if version.state != "ENABLED":
            raise KeyRotationError(f"version {version.number} of the key was not made: it is {version.state}")
        return version

    async def _set_primary(self, name: KeyName, version: KeyVersion) -> None:
        messages = await self._kms.messages()
        request = messages.service.UpdateCryptoKeyPrimaryVersionRequest(
            name=name.key, crypto_key_version_id=version.number
        )
        try:
            answer = await self._kms.call("rotate_key", "update_crypto_key_primary_version", request)
        except KeyStateError as error:
            raise KeyRotationError(f"version {version.number} cannot encrypt: {error}") from None
        require_intact(require_same(name, answer.primary.name).version == version.number, "another version encrypts")
