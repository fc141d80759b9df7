"""Argon2id (RFC 9106, version 0x13) from whichever library is there that computes it fastest.

Decision: docs/adr/0038-argon2id-is-computed-by-its-reference.md.
"""

from __future__ import annotations

import importlib
from functools import cache
from typing import Any, Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id

from keystead.errors import ConfigurationError

_VERSION: Final = 0x13


def argon2id(material: bytes, salt: bytes, *, length: int, memory_kib: int, iterations: int, lanes: int) -> bytes:
    """Return ``length`` bytes. It takes the processor for some milliseconds, and lets other threads run.

    Args:
        material: any bytes.
        salt: 8 bytes or more.
        memory_kib: at least 8 for each lane.

    Raises:
        ConfigurationError: argon2-cffi is not installed, and this OpenSSL has no Argon2id.
    """
    if (reference := _reference()) is not None:
        made: bytes = reference.hash_secret_raw(
            material, salt, iterations, memory_kib, lanes, length, reference.Type.ID, _VERSION
        )
        return made
    try:
        by = Argon2id(salt=salt, length=length, iterations=iterations, lanes=lanes, memory_cost=memory_kib)
    except UnsupportedAlgorithm:
        raise ConfigurationError(
            "this OpenSSL has no Argon2id: pip install argon2-cffi, or use RootKeyGenerator with a random seed"
        ) from None
    return by.derive(material)


@cache
def _reference() -> Any:
    """Return the module of argon2-cffi, which has the reference implementation; None where it is not installed."""
    try:
        return importlib.import_module("argon2.low_level")
    except ImportError:
        return None
