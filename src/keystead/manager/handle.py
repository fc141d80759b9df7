"""A keyring as the library's user holds it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING

from keystead.crypto.envelope import from_text, parse_header
from keystead.crypto.hot_path import Bytes, LocalDecrypt, LocalEncrypt
from keystead.crypto.keyring import Keyring
from keystead.errors import DataKeyNotLoadedError
from keystead.model import DataKeyInfo, RotationPolicy

if TYPE_CHECKING:
    from keystead.manager.session import Session


class KeyringHandle:
    """One named keyring: ``local_encrypt``/``local_decrypt`` without I/O, and what may need the store.

    ``local_encrypt(plaintext, *, context=None) -> bytes`` takes at most 64 MiB and returns an envelope;
    ``local_decrypt(ciphertext, *, context=None) -> bytes`` takes an envelope or its ``ks1.`` text. A ciphertext of
    one keyring never opens under another.
    """

    local_encrypt: LocalEncrypt
    local_decrypt: LocalDecrypt

    def __init__(self, ring: Keyring, session: Callable[[], Awaitable[Session]], policy: RotationPolicy) -> None:
        self.ring = ring
        self.name = ring.name
        self.local_encrypt = ring.local_encrypt
        self.local_decrypt = ring.local_decrypt
        self._session = session
        self._policy = policy

    def __repr__(self) -> str:
        return f"<KeyringHandle {self.ring!r}>"

    async def decrypt_local(self, ciphertext: Bytes | str, *, context: Mapping[str, str] | None = None) -> bytes:
        """Decrypt as ``local_decrypt`` does, fetching the data key from the store if it is not loaded.

        Raises:
            DecryptionError: wrong key, wrong context, altered bytes, or another keyring's ciphertext.
        """
        if self.ring.is_strict:
            await (await self._session()).subjects.freshen()
        try:
            return self.local_decrypt(ciphertext, context=context)
        except DataKeyNotLoadedError as exc:
            session = await self._session()
            await session.lifecycle.lookup.fetch(self.ring, exc.data_key_id)
        return self.local_decrypt(ciphertext, context=context)

    def needs_reencrypt(self, ciphertext: bytes | str) -> bool:
        """Return whether ``ciphertext`` is under a version other than the active one."""
        return self.ring.needs_reencrypt(ciphertext)

    async def reencrypt(self, ciphertext: bytes | str, *, context: Mapping[str, str] | None = None) -> bytes:
        """Return the same plaintext under the active version. The ciphertext is authenticated either way."""
        return self.local_encrypt(await self.decrypt_local(ciphertext, context=context), context=context)

    async def rotate(self, *, min_age: timedelta | None = None, promote: str = "auto") -> DataKeyInfo:
        """Replace the active version; see ``KeyManager.rotate_data_key``."""
        return await (await self._session()).rotate(self.name, self.ring, min_age=min_age, promote=promote)

    async def promote(self, *, force: bool = False) -> DataKeyInfo | None:
        """Make a waiting version active once every live node has loaded it, or now if ``force``."""
        session = await self._session()
        row = await session.lifecycle.rotation.promote(self.name, force=force)
        return None if row is None else DataKeyInfo.from_record(row)

    async def versions(self) -> list[DataKeyInfo]:
        """Return every version of the keyring, oldest first, destroyed ones included."""
        return await (await self._session()).versions(self.name)

    def get_rotation_policy(self) -> RotationPolicy:
        """Return the policy in force, with the times of the last and the next rotation where they are known."""
        held = self.ring.snapshot
        return replace(self._policy, last_rotation=held.active_since, next_rotation=held.rotate_after)

    def data_key_id(self, ciphertext: bytes | str) -> int:
        """Return the id of the data key that ``ciphertext`` names, without decrypting."""
        return parse_header(from_text(ciphertext) if isinstance(ciphertext, str) else ciphertext).key_id
