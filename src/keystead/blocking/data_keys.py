"""``keystead.blocking.DataKeys``."""

from __future__ import annotations

from keystead.manager import data_keys
from keystead.model import DataKeyInfo, EncryptedField
from keystead.runtime.loop import background_loop


class DataKeys:
    """The versions of the default keyring, for code that is not async."""

    def __init__(self, behind: data_keys.DataKeys) -> None:
        self._keys = behind

    def generate_data_key(self, algorithm: str = "AES-256-GCM") -> DataKeyInfo:
        """Make a new version, active as soon as every live node has loaded it."""
        return background_loop.run(self._keys.generate_data_key(algorithm))

    def get_active_data_key(self) -> DataKeyInfo:
        """Return the active version."""
        return background_loop.run(self._keys.get_active_data_key())

    def get_data_key_by_version(self, version: int | str) -> DataKeyInfo:
        """Return a version in any state."""
        return background_loop.run(self._keys.get_data_key_by_version(version))

    def rotate_data_key(self) -> DataKeyInfo:
        """Replace the active version."""
        return background_loop.run(self._keys.rotate_data_key())

    def encrypt_with_data_key(self, plaintext: bytes, version: int) -> EncryptedField:
        """Encrypt under ``version``, which must be the active one."""
        return background_loop.run(self._keys.encrypt_with_data_key(plaintext, version))

    def decrypt_with_data_key(self, encrypted: EncryptedField) -> bytes:
        """Decrypt a field under the version it names."""
        return background_loop.run(self._keys.decrypt_with_data_key(encrypted))
