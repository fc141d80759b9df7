"""Scopes of the engine: ``transit:<operation>:<key glob>``, read once and asked with every operation on a key."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import lru_cache
from typing import Final, NewType

from keystead.errors import InvalidInputError

TransitScope = NewType("TransitScope", str)
"""The text of a scope that is well formed; ``transit_scope`` makes them."""


class TransitOperation(StrEnum):
    """What a scope of the engine may allow."""

    CREATE = "create"
    READ = "read"
    LIST = "list"
    CONFIG = "config"
    ROTATE = "rotate"
    TRIM = "trim"
    DELETE = "delete"
    IMPORT = "import"
    ENCRYPT = "encrypt"
    DECRYPT = "decrypt"
    REWRAP = "rewrap"
    DATAKEY = "datakey"
    HMAC = "hmac"
    SIGN = "sign"
    VERIFY = "verify"
    RANDOM = "random"
    HASH = "hash"


PREFIX: Final = "transit:"
ANY: Final = "*"
KEYLESS: Final = frozenset({TransitOperation.LIST, TransitOperation.RANDOM, TransitOperation.HASH})
"""What is asked of no key: a scope allows it if its glob is ``*``."""
MAX_SCOPE: Final = 300
_SIGN: Final = "[A-Za-z0-9_.-]"
_SEGMENT: Final = rf"(?:\*|\*?{_SIGN}+(?:\*{_SIGN}+)*\*?)"
_FORM: Final = re.compile(rf"transit:([a-z]+|\*):({_SEGMENT}(?:/{_SEGMENT})*)")
PATTERN: Final = rf"^{_FORM.pattern}$"
"""The form of a scope, for descriptions."""


def transit_scope(text: str) -> TransitScope:
    """Return a scope of the engine.

    Raises:
        InvalidInputError: it is malformed, or could never allow anything.
    """
    found = _FORM.fullmatch(text) if len(text) <= MAX_SCOPE else None
    if found is None:
        raise InvalidInputError(
            f"a scope of the engine is transit:<operation>:<key glob> of up to {MAX_SCOPE} characters, such as "
            "transit:encrypt:orders-*; a glob has letters, digits, `_`, `-`, `.`, `/` between segments that are not "
            "empty, and single `*`, none of which crosses a `/`"
        )
    operation, glob = found[1], found[2]
    if operation != ANY and operation not in set(TransitOperation):
        known = ", ".join((ANY, *sorted(TransitOperation)))
        raise InvalidInputError(f"the engine has no operation {operation!r}; there are: {known}")
    if operation in KEYLESS and glob != ANY:
        raise InvalidInputError(f"{operation} is asked of no key: its scope is transit:{operation}:*")
    return TransitScope(text)


class KeyGlob:
    """A glob that whole names of keys are matched with, in time linear in the name for each of its ``*``."""

    __slots__ = ("_segments",)

    def __init__(self, text: str) -> None:
        self._segments = tuple(tuple(segment.split(ANY)) for segment in text.split("/"))

    def matches(self, name: str) -> bool:
        """Whether it matches a name."""
        given = name.split("/")
        return len(given) == len(self._segments) and all(map(_fits, self._segments, given))


@dataclass(frozen=True)
class TransitRights:
    """What scopes of the engine allow together."""

    scopes: frozenset[TransitScope]
    _by_operation: Mapping[str, tuple[frozenset[str], tuple[KeyGlob, ...]]] = field(
        init=False, repr=False, compare=False, default_factory=dict
    )

    def __post_init__(self) -> None:
        """Read the scopes."""
        names: dict[str, set[str]] = {}
        globs: dict[str, list[KeyGlob]] = {}
        for scope in sorted(self.scopes):
            operation, _, glob = scope.removeprefix(PREFIX).partition(":")
            for each in TransitOperation if operation == ANY else (TransitOperation(operation),):
                if ANY in glob:
                    globs.setdefault(each.value, []).append(KeyGlob(glob))
                else:
                    names.setdefault(each.value, set()).add(glob)
        found = {each: (frozenset(names.get(each, ())), tuple(globs.get(each, ()))) for each in names.keys() | globs}
        object.__setattr__(self, "_by_operation", found)

    def allow(self, operation: str, key: str = "") -> bool:
        """Whether an operation is allowed on a key; with no key for those of ``KEYLESS``."""
        found = self._by_operation.get(operation)
        if found is None:
            return False
        names, globs = found
        return key in names or any(glob.matches(key) for glob in globs)

    def allow_some(self, operation: str) -> bool:
        """Whether an operation is allowed on keys of any name at all."""
        return operation in self._by_operation


NO_RIGHTS: Final = TransitRights(frozenset())


@lru_cache(maxsize=1024)
def transit_rights(scopes: frozenset[TransitScope]) -> TransitRights:
    """Return what scopes allow, read once however many tokens have them."""
    return TransitRights(scopes)


def _fits(parts: tuple[str, ...], text: str) -> bool:
    """Whether a segment is these parts with anything between them."""
    first, *others = parts
    if not others:
        return text == first
    *inner, last = others
    if len(text) < len(first) + len(last) or not text.startswith(first) or not text.endswith(last):
        return False
    at, end = len(first), len(text) - len(last)
    for part in inner:
        found = text.find(part, at, end)
        if found < 0:
            return False
        at = found + len(part)
    return True
