"""Fernet tokens of ``cryptography``, under one key or several (MultiFernet).

A token is base64url of ``0x80 || time (8) || IV (16) || AES-128-CBC || HMAC-SHA256 (32)``: whether it opens is certain.
"""

from __future__ import annotations

from typing import Final

from cryptography.fernet import Fernet, InvalidToken, MultiFernet

from keystead.errors import InvalidInputError
from keystead.fields.importing.form import Keys, from_base64, keys_of, not_opened

_VERSION: Final = 0x80
_AROUND: Final = 1 + 8 + 16 + 32
_BLOCK: Final = 16


class FernetTokens:
    """Tokens as ``Fernet(key).encrypt`` and ``MultiFernet(keys).encrypt`` give them.

    Args:
        keys: as ``Fernet`` takes them, 32 bytes in base64url; of MultiFernet all of them.
    """

    def __init__(self, keys: Keys) -> None:
        self._opener = opener(keys_of(keys, "fernet"), "fernet")

    def recognises(self, value: bytes) -> bool:
        """Return whether it is a token: by version, length and its one spelling."""
        return is_token(value)

    def open(self, value: bytes) -> bytes:
        """Return the plaintext."""
        return opened(self._opener, value)


def opener(keys: tuple[bytes, ...], format: str) -> MultiFernet:
    """Return what opens tokens under Fernet keys.

    Raises:
        InvalidInputError: a key that is none; the message says which by its number.
    """
    made = []
    for number, key in enumerate(keys, 1):
        try:
            made.append(Fernet(key))
        except ValueError:
            raise InvalidInputError(
                f"keys of format {format}: number {number} is no Fernet key, which is 32 bytes in base64url, as "
                "Fernet.generate_key() gives it"
            ) from None
    return MultiFernet(made)


def opened(tokens: MultiFernet, value: bytes) -> bytes:
    """Return a token's plaintext.

    Raises:
        DecryptionError: under none of the keys.
    """
    try:
        return tokens.decrypt(value)
    except InvalidToken:
        raise not_opened() from None


def is_token(value: bytes) -> bool:
    """Return whether bytes are a Fernet token in its one spelling."""
    if not value.startswith(b"gAAA"):  # the version, and years before 2106
        return False
    raw = from_base64(value, url_safe=True)
    if raw is None or raw[0] != _VERSION:
        return False
    sealed = len(raw) - _AROUND
    return sealed >= _BLOCK and sealed % _BLOCK == 0
