"""The Go KMS's data key manager: its six operations, metadata only."""

from __future__ import annotations

from typing import TYPE_CHECKING

from keystead.errors import InvalidAlgorithmError, KeyStateError
from keystead.manager.crypto_service import ALGORITHMS
from keystead.model import DataKeyInfo, EncryptedField

if TYPE_CHECKING:
    from keystead.manager.manager import KeyManager


class DataKeys:
    """The versions of the default keyring."""

    def __init__(self, manager: KeyManager) -> None:
        self._manager = manager

    async def generate_data_key(self, algorithm: str = "AES-256-GCM") -> DataKeyInfo:
        """Make a new version, active as soon as every live node has loaded it.

        Raises:
            InvalidAlgorithmError: not AES-256-GCM.
        """
        if algorithm not in ALGORITHMS:
            raise InvalidAlgorithmError(f"algorithm {algorithm!r} is not AES-256-GCM")
        return await self._manager.rotate_data_key()

    async def get_active_data_key(self) -> DataKeyInfo:
        """Return the active version."""
        return await self._manager.get_active_data_key()

    async def get_data_key_by_version(self, version: int | str) -> DataKeyInfo:
        """Return a version in any state."""
        return await self._manager.get_data_key_by_version(version)

    async def rotate_data_key(self) -> DataKeyInfo:
        """Replace the active version."""
        return await self._manager.rotate_data_key()

    async def encrypt_with_data_key(self, plaintext: bytes, version: int) -> EncryptedField:
        """Encrypt under ``version``, which must be the active one.

        Raises:
            KeyStateError: it is not active.
        """
        active = await self._manager.get_active_data_key()
        if version == active.version:
            await (await self._manager.session()).live.refresh()
            field = await self._manager.crypto_service.encrypt_field("", plaintext)
            if field.version == version:
                return field
        raise KeyStateError(f"version {version} is not active; encrypt under version {active.version}")

    async def decrypt_with_data_key(self, encrypted: EncryptedField) -> bytes:
        """Decrypt a field under the version it names."""
        return await self._manager.crypto_service.decrypt_field(encrypted)
