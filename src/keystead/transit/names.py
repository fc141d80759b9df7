"""Names of Transit keys, and of the keyrings that hold their versions."""

from __future__ import annotations

import re
from hashlib import sha256
from typing import Final

from keystead.errors import InvalidInputError
from keystead.model import TRANSIT_PREFIX

MAX_NAME: Final = 255
NAME: Final = r"[A-Za-z0-9_](?:[A-Za-z0-9_.-]*[A-Za-z0-9_])?"
"""Letters, digits and ``_``; within a name also ``.`` and ``-``."""
_NAME: Final = re.compile(NAME)
_LONGEST: Final = 200
_DIGEST_CHARACTERS: Final = 40


def require_name(name: str) -> None:
    """Raise unless a key may be called so.

    Raises:
        InvalidInputError: it may not.
    """
    if not _NAME.fullmatch(name):
        raise InvalidInputError("invalid key name")
    if len(name) > MAX_NAME:
        raise InvalidInputError(f"invalid key name: a name has at most {MAX_NAME} characters")


def keyring_name(tenant: str, name: str, generation: int) -> str:
    """Return the name of the keyring of a key; ``generation`` counts those of one name, from 1.

    A keyring outlives its key, as its destroyed versions do, and a name may be given again. One that would be too long
    for a keyring is told by its digest.
    """
    whole = f"{tenant}/{name}" if tenant else name
    if len(whole) > _LONGEST:
        whole = "sha256:" + sha256(whole.encode()).hexdigest()[:_DIGEST_CHARACTERS]
    return f"{TRANSIT_PREFIX}{whole}" + (f"~{generation}" if generation > 1 else "")
