"""Blind indexes: keyed hashes that let a store find equal values without seeing them.

Spec: docs/spec/blind-index-v1.md.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import IntEnum
from typing import Final, TypeAlias

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.hmac import HMAC

from keystead.crypto.normalise import Normaliser, normalise, tokens
from keystead.errors import InvalidInputError

KEY_SIZE: Final = 32
INDEX_SIZE: Final = 32
WORDS: Final = 0x01
"""The parameter byte of a token index: how the value is cut into tokens."""

_HASH: Final = SHA256()

Hasher: TypeAlias = Callable[[bytes], bytes]
"""A value -> its index."""


class IndexKind(IntEnum):
    """The byte that keeps the kinds of index apart."""

    EXACT = 0x01
    NORMALISED = 0x02
    PREFIX = 0x03
    TOKEN = 0x04


def hasher(
    key: bytes | bytearray, field_id: str, tenant: str, *, kind: IndexKind, parameter: int, size: int | None = None
) -> Hasher:
    """Return what hashes the values of a field: key, field and tenant are taken in once.

    Args:
        size: keeps only the first bytes of a hash (1 to 32).

    Raises:
        InvalidInputError: an index key that is not 32 bytes, another size, a parameter outside 0 to 255, or a lone
            surrogate in the field id or tenant.
    """
    if len(key) != KEY_SIZE:
        raise InvalidInputError(f"an index key is {KEY_SIZE} bytes")
    if size is not None and not 1 <= size <= INDEX_SIZE:
        raise InvalidInputError(f"an index is truncated to 1 to {INDEX_SIZE} bytes")
    keyed = HMAC(key, _HASH)
    keyed.update(index_input(field_id, tenant, kind=kind, parameter=parameter, value=b""))

    def hashed(value: bytes) -> bytes:
        mac = keyed.copy()
        mac.update(value)
        return mac.finalize()[:size]

    return hashed


def index_input(field_id: str, tenant: str, *, kind: IndexKind, parameter: int, value: bytes) -> bytes:
    """Return the bytes that are authenticated: length-prefixed field id and tenant, kind, parameter, value.

    Raises:
        InvalidInputError: a parameter outside 0 to 255, or a lone surrogate in the field id or tenant.
    """
    if not 0 <= parameter <= 255:
        raise InvalidInputError("the parameter of an index is one byte")
    return _prefixed(field_id) + _prefixed(tenant) + bytes((kind, parameter)) + value


def exact_index(key: bytes | bytearray, field_id: str, tenant: str, value: bytes, *, size: int | None = None) -> bytes:
    """Return the index of ``value`` itself; ``size`` keeps only its first bytes (1 to 32).

    Raises:
        InvalidInputError: as ``hasher``; a value that is not bytes.
    """
    if not isinstance(value, bytes | bytearray | memoryview):
        raise InvalidInputError(f"an exact index takes bytes, not {type(value).__name__}; encode text with .encode()")
    return exact_hasher(key, field_id, tenant, size=size)(bytes(value))


def exact_hasher(key: bytes | bytearray, field_id: str, tenant: str, *, size: int | None = None) -> Hasher:
    """Return what gives ``exact_index`` of one value after the other; errors as ``hasher``."""
    return hasher(key, field_id, tenant, kind=IndexKind.EXACT, parameter=0, size=size)


def exact_index_hex(key: bytes | bytearray, field_id: str, tenant: str, value: bytes) -> str:
    """Return the whole exact index in lower-case hex, 64 characters.

    Raises:
        InvalidInputError: as ``exact_index``.
    """
    return exact_index(key, field_id, tenant, value).hex()


def normalised_index(
    key: bytes | bytearray, field_id: str, tenant: str, value: str, *, normaliser: Normaliser, size: int | None = None
) -> bytes:
    """Return the index of ``value`` as ``normaliser`` writes it, so that its spellings share one index.

    Raises:
        InvalidInputError: as ``hasher``; a lone surrogate in the value.
    """
    return normalised_hasher(key, field_id, tenant, normaliser=normaliser, size=size)(value)


def normalised_hasher(
    key: bytes | bytearray, field_id: str, tenant: str, *, normaliser: Normaliser, size: int | None = None
) -> Callable[[str], bytes]:
    """Return what gives ``normalised_index`` of one value after the other; errors as there."""
    hashed = hasher(key, field_id, tenant, kind=IndexKind.NORMALISED, parameter=normaliser, size=size)
    return lambda value: hashed(_utf8(normalise(value, normaliser)))


def prefix_index(
    key: bytes | bytearray, field_id: str, tenant: str, value: str, *, length: int, size: int | None = None
) -> bytes:
    """Return the index of the first ``length`` code points (1 to 255) of ``value``, case and white space folded.

    A shorter value is indexed whole: it is found by itself, not by what would begin with it.

    Raises:
        InvalidInputError: another length; as ``normalised_index``.
    """
    return prefix_hasher(key, field_id, tenant, length=length, size=size)(value)


def prefix_hasher(
    key: bytes | bytearray, field_id: str, tenant: str, *, length: int, size: int | None = None
) -> Callable[[str], bytes]:
    """Return what gives ``prefix_index`` of one value after the other; errors as there."""
    if not 1 <= length <= 255:
        raise InvalidInputError("a prefix index covers 1 to 255 characters")
    hashed = hasher(key, field_id, tenant, kind=IndexKind.PREFIX, parameter=length, size=size)
    return lambda value: hashed(_utf8(normalise(value)[:length]))


def token_indexes(
    key: bytes | bytearray, field_id: str, tenant: str, value: str, *, size: int | None = None
) -> list[bytes]:
    """Return one index for each distinct word of ``value``, sorted, so that their order tells nothing of the words'.

    Raises:
        InvalidInputError: as ``normalised_index``.
    """
    hashed = hasher(key, field_id, tenant, kind=IndexKind.TOKEN, parameter=WORDS, size=size)
    return sorted(hashed(_utf8(word)) for word in tokens(value))


def _prefixed(text: str) -> bytes:
    raw = _utf8(text)
    return len(raw).to_bytes(4, "big") + raw


def _utf8(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError:
        raise InvalidInputError("the text has a lone surrogate, which UTF-8 cannot encode") from None
