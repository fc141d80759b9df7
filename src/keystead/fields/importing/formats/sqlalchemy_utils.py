"""Columns of sqlalchemy-utils: ``StringEncryptedType`` and ``EncryptedType``, with each of its engines.

The key is SHA-256 of what the column was given. The default engine is AES-256-CBC whose IV is the first half of the
key, without a MAC: equal values look equal, and nothing tells an altered value from a whole one for certain.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Mapping
from typing import Final, NamedTuple

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from keystead.errors import InvalidInputError
from keystead.fields.importing.form import Keys, from_base64, keys_of, not_opened
from keystead.fields.importing.formats.fernet import is_token, opened, opener

_NAME: Final = "sqlalchemy-utils"
_BLOCK: Final = 16
_IV_SIZE: Final = 12
_TAG_SIZE: Final = 16


class _Padding(NamedTuple):
    pad: Callable[[int], bytes]
    unpad: Callable[[bytes], bytes]


class _Cbc:
    """AES-256-CBC under one key, with a fixed IV."""

    def __init__(self, keys: tuple[bytes, ...], padding: str) -> None:
        if len(keys) > 1:
            raise InvalidInputError(
                "format sqlalchemy-utils with engine aes takes one key: nothing in a value tells for certain which of "
                "several it is under"
            )
        if padding not in _PADDINGS:
            raise InvalidInputError(f"padding= of format sqlalchemy-utils is one of {', '.join(_PADDINGS)}")
        self._cipher = Cipher(algorithms.AES(keys[0]), modes.CBC(keys[0][:_BLOCK]))
        self._padding = _PADDINGS[padding]

    def recognises(self, value: bytes) -> bool:
        raw = from_base64(value)
        return raw is not None and len(raw) > 0 and len(raw) % _BLOCK == 0

    def open(self, value: bytes) -> str:
        raw = from_base64(value)
        decryptor = self._cipher.decryptor()
        padded = decryptor.update(raw or b"") + decryptor.finalize()
        try:
            return self._padding.unpad(padded).decode()
        except ValueError:
            raise not_opened() from None

    def form_of(self, text: str) -> str:
        content = text.encode()
        encryptor = self._cipher.encryptor()
        padded = content + self._padding.pad(_BLOCK - len(content) % _BLOCK)
        return base64.b64encode(encryptor.update(padded) + encryptor.finalize()).decode()


class _Gcm:
    """AES-256-GCM with a random IV: ``IV (12) || tag (16) || ciphertext``."""

    def __init__(self, keys: tuple[bytes, ...]) -> None:
        self._ciphers = [AESGCM(key) for key in keys]

    def recognises(self, value: bytes) -> bool:
        raw = from_base64(value)
        return raw is not None and len(raw) >= _IV_SIZE + _TAG_SIZE

    def open(self, value: bytes) -> bytes:
        raw = from_base64(value) or b""
        start = _IV_SIZE + _TAG_SIZE
        for cipher in self._ciphers:
            try:
                return cipher.decrypt(raw[:_IV_SIZE], raw[start:] + raw[_IV_SIZE:start], None)
            except InvalidTag:
                continue
        raise not_opened()


class _Fernet:
    """Fernet tokens."""

    def __init__(self, keys: tuple[bytes, ...]) -> None:
        self._opener = opener(tuple(map(base64.urlsafe_b64encode, keys)), _NAME)

    def recognises(self, value: bytes) -> bool:
        return is_token(value)

    def open(self, value: bytes) -> bytes:
        return opened(self._opener, value)


def engine_of(keys: Keys, engine: str = "aes", padding: str = "naive") -> _Cbc | _Gcm | _Fernet:
    """Return what opens a column's values.

    Args:
        keys: what the column was given as its key: text or bytes of any length.
        engine: ``aes`` (AesEngine, the default there), ``aes-gcm`` or ``fernet``.
        padding: of AesEngine: ``naive`` (the default there), ``pkcs5``, ``oneandzeroes`` or ``zeroes``.

    Raises:
        InvalidInputError: another engine or padding, or several keys of ``aes``.
    """
    hashed = tuple(hashlib.sha256(key).digest() for key in keys_of(keys, _NAME))
    if engine == "aes":
        return _Cbc(hashed, padding)
    if padding != "naive":
        raise InvalidInputError("padding= of format sqlalchemy-utils is for engine aes alone")
    if engine == "aes-gcm":
        return _Gcm(hashed)
    if engine == "fernet":
        return _Fernet(hashed)
    raise InvalidInputError("engine= of format sqlalchemy-utils is aes, aes-gcm or fernet")


def _unpad_naive(padded: bytes) -> bytes:
    if not padded.endswith(b"*"):
        raise ValueError
    # A value that ended with asterisks lost them to that library, too.
    return padded.rstrip(b"*")


def _unpad_pkcs5(padded: bytes) -> bytes:
    size = padded[-1]
    if not 1 <= size <= _BLOCK or padded[-size:] != bytes([size]) * size:
        raise ValueError
    return padded[:-size]


def _unpad_zeroes(padded: bytes) -> bytes:
    size = padded[-1]
    if not 1 <= size <= _BLOCK or any(padded[-size:-1]):
        raise ValueError
    return padded[:-size]


def _unpad_one_and_zeroes(padded: bytes) -> bytes:
    content = padded.rstrip(b"\0")
    if not content.endswith(b"\x80") or len(padded) - len(content) >= _BLOCK:
        raise ValueError
    return content[:-1]


_PADDINGS: Final[Mapping[str, _Padding]] = {
    "naive": _Padding(lambda size: b"*" * size, _unpad_naive),
    "pkcs5": _Padding(lambda size: bytes([size]) * size, _unpad_pkcs5),
    "oneandzeroes": _Padding(lambda size: b"\x80" + bytes(size - 1), _unpad_one_and_zeroes),
    "zeroes": _Padding(lambda size: bytes(size - 1) + bytes([size]), _unpad_zeroes),
}
