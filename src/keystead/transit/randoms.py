"""Random bytes, and hashes of what is sent."""

from __future__ import annotations

from enum import StrEnum
from typing import Final

from keystead.errors import InvalidInputError
from keystead.ports import Random
from keystead.transit import base64_text
from keystead.transit.digests import Hash

MOST: Final = 128 * 1024
USUAL: Final = 32
HEX: Final = "hex"
BASE64: Final = "base64"


class Source(StrEnum):
    """Where random bytes may be asked from. All are the process's one source: it has no other."""

    PLATFORM = "platform"
    SEAL = "seal"
    ALL = "all"


def random_text(random: Random, size: int = USUAL, *, form: str = BASE64, source: str = Source.PLATFORM) -> str:
    """Return that many random bytes, 1 to 131072, as ``hex`` or ``base64``.

    Raises:
        InvalidInputError: another size, form or source.
    """
    if size < 1:
        raise InvalidInputError("'bytes' cannot be less than 1")
    if size > MOST:
        raise InvalidInputError(f"'bytes' should be less than {MOST}")
    if form not in (HEX, BASE64):
        raise InvalidInputError(f'unsupported encoding format "{form}"; must be "hex" or "base64"')
    if source not in set(Source):
        raise InvalidInputError(f'unsupported entropy source "{source}"; must be "platform" or "seal", or "all"')
    return _shown(random(size), form)


def hash_text(data: bytes, algorithm: str = Hash.SHA2_256, *, form: str = HEX) -> str:
    """Return the hash of data as ``hex`` or ``base64``.

    Raises:
        InvalidInputError: another form, or no such hash function; SHA-1 is none here.
    """
    if form not in (HEX, BASE64):
        raise InvalidInputError(f'unsupported encoding format {form}; must be "hex" or "base64"')
    if algorithm == Hash.SHA1 or algorithm not in set(Hash):
        raise InvalidInputError(f"unsupported algorithm {algorithm}")
    return _shown(Hash(algorithm).digest(data), form)


def _shown(data: bytes, form: str) -> str:
    return data.hex() if form == HEX else base64_text.encode(data)
