"""A local KEK made of keys that nobody numbered: each has the number that its fingerprint gives it.

Spec: docs/spec/local-kek-v1.md, "Numbers without a KEK file".
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from keystead.errors import ConfigurationError
from keystead.providers.key_material import KeyMaterial
from keystead.providers.local.kek import KekVersion, LocalKek

_MATERIAL: Final = 0x80000000
"""Set in every number made here, and in none of a KEK file: those count from one."""


def version_number(fingerprint: str) -> int:
    """Return the number of the key that has this fingerprint."""
    return _MATERIAL | int(fingerprint[:8], 16) & ~_MATERIAL


def kek_of_key(key: bytes) -> LocalKek:
    """Return the KEK that has ``key`` alone."""
    return kek_of([KeyMaterial.of(key)])


def kek_of(keys: Sequence[KeyMaterial]) -> LocalKek:
    """Return the KEK of these keys, the newest first.

    Raises:
        ConfigurationError: two of them would have the same number.
    """
    numbers = [version_number(key.fingerprint) for key in keys]
    if len(set(numbers)) != len(numbers):
        raise ConfigurationError(
            "two keys of this KEK cannot be told apart by 31 bits of their fingerprints; draw the newest again"
        )
    versions = [KekVersion(number, key.key) for number, key in zip(numbers, keys, strict=True)]
    return LocalKek(versions, newest=numbers[0])
