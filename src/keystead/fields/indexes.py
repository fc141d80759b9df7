"""The blind indexes a field may have: what each finds, and the columns it lives in.

An index lives in two columns, used in turn by the parity of the index key's version, so that a rotation of the key can
write both; a token index lives in a table of its own. Specs: docs/spec/blind-index-v1.md, docs/spec/field-v1.md.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import ClassVar, Final, Protocol

from keystead.crypto.blind_index import (
    INDEX_SIZE,
    exact_hasher,
    normalised_hasher,
    prefix_hasher,
    token_indexes,
)
from keystead.crypto.codec import ValueType, encode_value
from keystead.crypto.normalise import Normaliser
from keystead.errors import InvalidInputError

VERSION_SIZE: Final = 1
"""What is stored of a hash begins with the last byte of its key's version."""
SURE_SIZE: Final = 16
"""From so many bytes on, an index finds no value by chance; a shorter one gives candidates."""

_NORMALISERS: Final[Mapping[str, Normaliser]] = {
    "text": Normaliser.CASE_AND_SPACE,
    "email": Normaliser.EMAIL,
    "phone": Normaliser.PHONE,
}
_NOT_EQUAL_BY_BYTES: Final = frozenset({ValueType.JSON, ValueType.FLOAT, ValueType.DECIMAL})


class Index(Protocol):
    """One blind index of a field."""

    many: ClassVar[bool]
    """Whether a value has several hashes, which live in a table of their own."""

    @property
    def name(self) -> str:
        """What tells it from the field's other indexes, and its columns from theirs."""

    @property
    def unique(self) -> bool:
        """Whether no two rows may share a value."""

    @property
    def size(self) -> int:
        """Bytes of a hash."""

    @property
    def stored_size(self) -> int:
        """Bytes of what is stored of a hash."""

    @property
    def is_sure(self) -> bool:
        """Whether an equal hash is an equal value."""

    def column(self, column: str, parity: int) -> str:
        """Return the column that holds the hashes under index keys of a parity, for the field's own column."""

    def require_type(self, kind: ValueType) -> None:
        """Raise ``InvalidInputError`` where values of that type cannot be indexed so."""

    def hasher(self, key: bytes, field_id: str, tenant: str, kind: ValueType) -> Callable[[object], bytes]:
        """Return what gives the hash to look for, of one value after the other."""

    def hashes(self, key: bytes, field_id: str, tenant: str, value: object, kind: ValueType) -> list[bytes]:
        """Return the hashes of a value: one, or for a token index one for each token."""


@dataclass(frozen=True, slots=True)
class _Sized:
    unique: bool = False
    size: int = INDEX_SIZE

    many: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if not 1 <= self.size <= INDEX_SIZE:
            raise InvalidInputError(f"an index has 1 to {INDEX_SIZE} bytes")
        if self.unique and not self.is_sure:
            raise InvalidInputError(f"a unique index has at least {SURE_SIZE} bytes: shorter ones collide by chance")

    @property
    def stored_size(self) -> int:
        """Bytes of what is stored of a hash."""
        return VERSION_SIZE + self.size

    @property
    def is_sure(self) -> bool:
        """Whether an equal hash is an equal value."""
        return self.size >= SURE_SIZE

    @property
    def name(self) -> str:
        """What tells it from the field's other indexes."""
        raise NotImplementedError

    def column(self, column: str, parity: int) -> str:
        """Return the column of a parity."""
        return f"{column}_{self.name}_{parity}"

    def hasher(self, key: bytes, field_id: str, tenant: str, kind: ValueType) -> Callable[[object], bytes]:
        """Return what gives the hash to look for."""
        raise NotImplementedError

    def hashes(self, key: bytes, field_id: str, tenant: str, value: object, kind: ValueType) -> list[bytes]:
        """Return the one hash of a value."""
        return [self.hasher(key, field_id, tenant, kind)(value)]


@dataclass(frozen=True, slots=True)
class Exact(_Sized):
    """Finds equal values: ``==`` and ``in_``. ``unique`` makes two equal values a conflict."""

    @property
    def name(self) -> str:
        """``exact``."""
        return "exact"

    def require_type(self, kind: ValueType) -> None:
        """Refuse types whose equal values have unequal bytes."""
        if kind in _NOT_EQUAL_BY_BYTES:
            raise InvalidInputError(
                f"an exact index compares bytes, and equal values of type {kind.name.lower()} can have different ones"
            )

    def hasher(self, key: bytes, field_id: str, tenant: str, kind: ValueType) -> Callable[[object], bytes]:
        """Return what hashes a value's bytes: of text its UTF-8, of every other type its typed plaintext."""
        hashed = exact_hasher(key, field_id, tenant, size=self.size)
        content = slice(1, None) if kind in (ValueType.TEXT, ValueType.BYTES) else slice(None)

        def of_any(value: object) -> bytes:
            return hashed(encode_value(value, kind)[content])

        def of_text(value: object) -> bytes:
            try:
                return hashed(value.encode()) if value.__class__ is str else of_any(value)
            except UnicodeEncodeError:
                return of_any(value)  # which says what is wrong

        return of_text if kind is ValueType.TEXT else of_any


@dataclass(frozen=True, slots=True)
class Normalised(_Sized):
    """Finds texts that differ in spelling alone: as text (case, white space), as ``email``, or as ``phone`` number."""

    as_: str = "text"

    def __post_init__(self) -> None:
        _Sized.__post_init__(self)
        if self.as_ not in _NORMALISERS:
            raise InvalidInputError(f"a normalised index reads text as one of {', '.join(_NORMALISERS)}")

    @property
    def name(self) -> str:
        """``like_text``, ``like_email`` or ``like_phone``."""
        return f"like_{self.as_}"

    def require_type(self, kind: ValueType) -> None:
        """Refuse what is no text."""
        _require_text(kind)

    def hasher(self, key: bytes, field_id: str, tenant: str, kind: ValueType) -> Callable[[object], bytes]:
        """Return what hashes the normalised text."""
        hashed = normalised_hasher(key, field_id, tenant, normaliser=_NORMALISERS[self.as_], size=self.size)
        return lambda value: hashed(_text(value))


@dataclass(frozen=True, slots=True)
class Prefix(_Sized):
    """Finds texts by their first ``length`` characters, whatever their case."""

    length: int = 3

    def __post_init__(self) -> None:
        _Sized.__post_init__(self)
        if not 1 <= self.length <= 255:
            raise InvalidInputError("a prefix index covers 1 to 255 characters")

    @property
    def name(self) -> str:
        """``prefix`` and the length."""
        return f"prefix{self.length}"

    def require_type(self, kind: ValueType) -> None:
        """Refuse what is no text."""
        _require_text(kind)

    def hasher(self, key: bytes, field_id: str, tenant: str, kind: ValueType) -> Callable[[object], bytes]:
        """Return what hashes the first characters."""
        hashed = prefix_hasher(key, field_id, tenant, length=self.length, size=self.size)
        return lambda value: hashed(_text(value))


@dataclass(frozen=True, slots=True)
class Tokens(_Sized):
    """Finds texts by any of their words. Its hashes live in a table of their own, one row for each word."""

    many: ClassVar[bool] = True

    def __post_init__(self) -> None:
        _Sized.__post_init__(self)
        if self.unique:
            raise InvalidInputError("a token index cannot be unique: texts share words")

    @property
    def name(self) -> str:
        """``tokens``."""
        return "tokens"

    def require_type(self, kind: ValueType) -> None:
        """Refuse what is no text."""
        _require_text(kind)

    def hashes(self, key: bytes, field_id: str, tenant: str, value: object, kind: ValueType) -> list[bytes]:
        """Return a hash for each distinct word, sorted."""
        return token_indexes(key, field_id, tenant, _text(value), size=self.size)

    def hasher(self, key: bytes, field_id: str, tenant: str, kind: ValueType) -> Callable[[object], bytes]:
        """Return what hashes one word, and refuses what is none or several."""

        def hashed(value: object) -> bytes:
            found = self.hashes(key, field_id, tenant, value, kind)
            if len(found) != 1:
                raise InvalidInputError("a token index finds one word at a time; combine several with and_() or or_()")
            return found[0]

        return hashed


def version_marks(versions: Iterable[int]) -> dict[int, bytes]:
    """Return the marks of live versions, by the parity of each."""
    return {version % 2: version_mark(version) for version in versions}


def version_mark(version: int) -> bytes:
    """Return what stands in front of every stored hash under a version of the index keyring.

    By it a hash of an older version is told from one of this, with which it may share a column.
    """
    return (version & 0xFF).to_bytes(VERSION_SIZE, "big")


def hash_columns(column: str, names: Iterable[str]) -> set[str]:
    """Return those of a table's columns that hold the hashes of an index, of any kind, of one of its columns."""
    kinds = "|".join(("exact", r"prefix\d+", *(f"like_{name}" for name in _NORMALISERS)))
    pattern = re.compile(f"{re.escape(column)}_(?:{kinds})_[01]")
    return {name for name in names if pattern.fullmatch(name)}


def _require_text(kind: ValueType) -> None:
    if kind is not ValueType.TEXT:
        raise InvalidInputError(f"this index reads text, and the field is of type {kind.name.lower()}; use Exact")


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise InvalidInputError(f"this index takes text, not {type(value).__name__}")
    return value
