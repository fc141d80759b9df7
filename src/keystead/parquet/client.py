"""What wraps the keys of Parquet files: pyarrow draws and uses them."""

from __future__ import annotations

from typing import Final
from urllib.parse import quote, unquote

import pyarrow.parquet.encryption as pe

from keystead import blocking
from keystead.crypto.envelope import to_text
from keystead.errors import InvalidInputError

KMS: Final = "kms:"
"""A master key that begins so is a key of the KMS, by the id behind it; every other one is a keyring."""
_USE: Final = "key of a parquet file"


class KmsClient(pe.KmsClient):  # type: ignore[misc]
    """Wraps and unwraps keys, for a ``pyarrow.parquet.encryption.CryptoFactory``.

    A master key's identifier, which stands in the clear in the file, is the name of a keyring, or ``kms:`` and the id
    of a key of the KMS (its default one without an id); under that each wrap and unwrap is a call to it. In the file it
    is percent-encoded: pyarrow keeps identifiers apart by colons, commas and semicolons.

    Args:
        km: an initialised ``keystead.blocking.KeyManager``: pyarrow asks from threads of its own, and waits.
    """

    def __init__(self, km: blocking.KeyManager) -> None:
        super().__init__()
        self._km = require_blocking(km)

    def wrap_key(self, key_bytes: bytes, master_key_identifier: str) -> str:
        """Return a key wrapped, as text; errors as ``km.keyring`` or ``km.encrypt``."""
        key, name = bytes(key_bytes), name_of(master_key_identifier)
        if name.startswith(KMS):
            key_id = name.removeprefix(KMS) or None
            return str(self._km.encrypt(key, key_id=key_id, context=_context(name)))
        return to_text(self._km.keyring(name).local_encrypt(key, context=_context(name)))

    def unwrap_key(self, wrapped_key: str | bytes, master_key_identifier: str) -> bytes:
        """Return a key in clear.

        Raises:
            DecryptionError: it was wrapped under another master key, or is altered.
            KMSError: as ``km.keyring`` or ``km.decrypt``.
        """
        text = wrapped_key.decode("ascii") if isinstance(wrapped_key, bytes) else wrapped_key
        name = name_of(master_key_identifier)
        if name.startswith(KMS):
            return self._km.decrypt(text, context=_context(name))
        return self._km.keyring(name, create=False).local_decrypt(text, context=_context(name))


def identifier_of(name: str) -> str:
    """Return the identifier of a keyring or a key of the KMS, as a file has it."""
    return quote(name, safe="/@")


def name_of(identifier: str) -> str:
    """Return the name of the keyring or key of the KMS that an identifier in a file stands for."""
    return unquote(identifier)


def require_blocking(km: object) -> blocking.KeyManager:
    """Return a manager that may block.

    Raises:
        InvalidInputError: it may not.
    """
    if not isinstance(km, blocking.KeyManager):
        raise InvalidInputError(
            f"pyarrow waits for keys in threads of its own: give it a keystead.blocking.KeyManager, not "
            f"{type(km).__name__}"
        )
    return km


def _context(master_key: str) -> dict[str, str]:
    return {"use": _USE, "master_key": master_key}
