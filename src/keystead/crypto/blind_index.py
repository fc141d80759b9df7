"""Blind indexes: keyed hashes that let a store find equal values without seeing them.

Spec: docs/spec/blind-index-v1.md.
"""

from __future__ import annotations

from enum import IntEnum
from functools import lru_cache
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

IndexKey: TypeAlias = bytes | bytearray | HMAC
"""An index key, or what ``keyed`` makes of one."""


class IndexKind(IntEnum):
    """The byte that keeps the kinds of index apart."""

    EXACT = 0x01
    NORMALISED = 0x02
    PREFIX = 0x03
    TOKEN = 0x04


def index_input(field_id: str, tenant: str, *, kind: IndexKind, parameter: int, value: bytes) -> bytes:
    """Return the bytes that are authenticated: length-prefixed field id and tenant, kind, parameter, value.

    Raises:
        InvalidInputError: a parameter outside 0 to 255, or a lone surrogate in the field id or tenant.
    """
    return _head(field_id, tenant, kind, parameter) + value


def exact_index(key: IndexKey, field_id: str, tenant: str, value: bytes, *, size: int | None = None) -> bytes:
    """Return the index of ``value`` itself; ``size`` keeps only its first bytes (1 to 32).

    Raises:
        InvalidInputError: an index key that is not 32 bytes, another size, or a value that is not bytes.
    """
    if not isinstance(value, bytes | bytearray | memoryview):
        raise InvalidInputError(f"an exact index takes bytes, not {type(value).__name__}; encode text with .encode()")
    return _index(key, index_input(field_id, tenant, kind=IndexKind.EXACT, parameter=0, value=bytes(value)), size)


def exact_index_hex(key: IndexKey, field_id: str, tenant: str, value: bytes) -> str:
    """Return the whole exact index in lower-case hex, 64 characters.

    Raises:
        InvalidInputError: as ``exact_index``.
    """
    return exact_index(key, field_id, tenant, value).hex()


def normalised_index(
    key: IndexKey, field_id: str, tenant: str, value: str, *, normaliser: Normaliser, size: int | None = None
) -> bytes:
    """Return the index of ``value`` as ``normaliser`` writes it, so that its spellings share one index.

    Raises:
        InvalidInputError: as ``exact_index``; a lone surrogate in the value.
    """
    text = _utf8(normalise(value, normaliser))
    return _index(key, index_input(field_id, tenant, kind=IndexKind.NORMALISED, parameter=normaliser, value=text), size)


def prefix_index(
    key: IndexKey, field_id: str, tenant: str, value: str, *, length: int, size: int | None = None
) -> bytes:
    """Return the index of the first ``length`` code points (1 to 255) of ``value``, case and white space folded.

    A shorter value is indexed whole: it is found by itself, not by what would begin with it.

    Raises:
        InvalidInputError: another length; as ``normalised_index``.
    """
    if not 1 <= length <= 255:
        raise InvalidInputError("a prefix index covers 1 to 255 characters")
    text = _utf8(normalise(value)[:length])
    return _index(key, index_input(field_id, tenant, kind=IndexKind.PREFIX, parameter=length, value=text), size)


def token_indexes(key: IndexKey, field_id: str, tenant: str, value: str, *, size: int | None = None) -> list[bytes]:
    """Return one index for each distinct word of ``value``, sorted, so that their order tells nothing of the words'.

    Raises:
        InvalidInputError: as ``normalised_index``.
    """
    return sorted(
        _index(key, index_input(field_id, tenant, kind=IndexKind.TOKEN, parameter=WORDS, value=_utf8(word)), size)
        for word in tokens(value)
    )


def keyed(key: bytes | bytearray) -> HMAC:
    """Return an index key as what hashes many values: the key is taken in once.

    Raises:
        InvalidInputError: an index key that is not 32 bytes.
    """
    if len(key) != KEY_SIZE:
        raise InvalidInputError(f"an index key is {KEY_SIZE} bytes")
    return HMAC(key, _HASH)


def _index(key: IndexKey, data: bytes, size: int | None) -> bytes:
    mac = key.copy() if isinstance(key, HMAC) else keyed(key)
    if size is not None and not 1 <= size <= INDEX_SIZE:
        raise InvalidInputError(f"an index is truncated to 1 to {INDEX_SIZE} bytes")
    mac.update(data)
    return mac.finalize()[:size]


@lru_cache
def _head(field_id: str, tenant: str, kind: IndexKind, parameter: int) -> bytes:
    """Return what stands before every value of a field: the same for all rows of a statement."""
    if not 0 <= parameter <= 255:
        raise InvalidInputError("the parameter of an index is one byte")
    return _prefixed(field_id) + _prefixed(tenant) + bytes((kind, parameter))


def _prefixed(text: str) -> bytes:
    raw = _utf8(text)
    return len(raw).to_bytes(4, "big") + raw


def _utf8(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError:
        raise InvalidInputError("the text has a lone surrogate, which UTF-8 cannot encode") from None
