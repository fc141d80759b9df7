"""What providers are given, checked by all of them alike."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final, TypeVar

from keystead.errors import InvalidInputError, KeyNotFoundError
from keystead.model import EncryptedData

T = TypeVar("T")

_DATA_KEY_SIZES: Final[Mapping[str, int]] = {"AES_128": 16, "AES_256": 32}


def data_key_size(key_spec: str) -> int:
    """Return how many bytes a data key has.

    Raises:
        InvalidInputError: ``key_spec`` is neither AES_128 nor AES_256.
    """
    if key_spec not in _DATA_KEY_SIZES:
        raise InvalidInputError("key_spec must be 'AES_128' or 'AES_256'")
    return _DATA_KEY_SIZES[key_spec]


def require_plaintext(plaintext: object) -> None:
    """Refuse what is not bytes-like.

    Raises:
        InvalidInputError: naming the cure for text.
    """
    if not isinstance(plaintext, bytes | bytearray | memoryview):
        raise InvalidInputError("encrypt takes bytes; encode text first with .encode()")


def message_bytes(message: object) -> bytes:
    """Return what is to be signed.

    Raises:
        InvalidInputError: it is not bytes-like.
    """
    if not isinstance(message, bytes | bytearray | memoryview):
        raise InvalidInputError("what is signed is bytes; encode text first with .encode()")
    return bytes(message)


def recorded_key(encrypted: EncryptedData, read: Callable[[str], T]) -> T:
    """Return what ``read`` makes of the key id in ``encrypted``.

    A name that can be no key's is not the caller's mistake there, but an altered record.

    Raises:
        KeyNotFoundError: ``read`` refuses it.
    """
    try:
        return read(encrypted.key_reference.key_id)
    except InvalidInputError as exc:
        raise KeyNotFoundError(f"what is encrypted names a key that cannot be: {exc}") from None
