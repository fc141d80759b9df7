"""``keystead.blocking.KeyringHandle``."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta

from keystead.crypto.hot_path import Bytes, LocalDecrypt, LocalEncrypt
from keystead.crypto.keyring import Keyring
from keystead.errors import DataKeyNotLoadedError, StaleViewError
from keystead.manager import handle
from keystead.model import DataKeyInfo, RotationPolicy
from keystead.runtime.loop import background_loop


class KeyringHandle:
    """``keystead.KeyringHandle`` for code that is not async."""

    local_encrypt: LocalEncrypt
    local_decrypt: LocalDecrypt

    def __init__(self, behind: handle.KeyringHandle) -> None:
        self._handle = behind
        self.name = behind.name
        self.local_encrypt = behind.local_encrypt
        self.local_decrypt = _fetching(behind)

    def __repr__(self) -> str:
        return f"<blocking {self._handle!r}>"

    @property
    def ring(self) -> Keyring:
        """The versions in memory."""
        return self._handle.ring

    def decrypt_local(self, ciphertext: Bytes | str, *, context: Mapping[str, str] | None = None) -> bytes:
        """Decrypt as ``local_decrypt`` does: here both fetch a data key that is not loaded."""
        return self.local_decrypt(ciphertext, context=context)

    def needs_reencrypt(self, ciphertext: bytes | str) -> bool:
        """Return whether ``ciphertext`` is under a version other than the active one."""
        return self._handle.needs_reencrypt(ciphertext)

    def reencrypt(self, ciphertext: bytes | str, *, context: Mapping[str, str] | None = None) -> bytes:
        """Return the same plaintext under the active version. The ciphertext is authenticated either way."""
        return background_loop.run(self._handle.reencrypt(ciphertext, context=context))

    def rotate(self, *, min_age: timedelta | None = None, promote: str = "auto") -> DataKeyInfo:
        """Replace the active version; see ``KeyManager.rotate_data_key``."""
        return background_loop.run(self._handle.rotate(min_age=min_age, promote=promote))

    def promote(self, *, force: bool = False) -> DataKeyInfo | None:
        """Make a waiting version active once every live node has loaded it, or now if ``force``."""
        return background_loop.run(self._handle.promote(force=force))

    def versions(self) -> list[DataKeyInfo]:
        """Return every version of the keyring, oldest first, destroyed ones included."""
        return background_loop.run(self._handle.versions())

    def get_rotation_policy(self) -> RotationPolicy:
        """Return the policy in force, with the times of the last and the next rotation where they are known."""
        return self._handle.get_rotation_policy()

    def data_key_id(self, ciphertext: bytes | str) -> int:
        """Return the id of the data key that ``ciphertext`` names, without decrypting."""
        return self._handle.data_key_id(ciphertext)


def _fetching(behind: handle.KeyringHandle) -> LocalDecrypt:
    """Return ``local_decrypt`` with a fetch where it meets a data key that is not loaded, and a look where it must."""
    fast = behind.local_decrypt

    def local_decrypt(ciphertext: Bytes | str, *, context: Mapping[str, str] | None = None) -> bytes:
        try:
            return fast(ciphertext, context=context)
        except (DataKeyNotLoadedError, StaleViewError):
            return background_loop.run(behind.decrypt_local(ciphertext, context=context))

    return local_decrypt
