"""Names of Transit keys, and of the keyrings that hold their versions."""

from __future__ import annotations

import re
from typing import Final

from keystead.errors import InvalidInputError
from keystead.model import TRANSIT_PREFIX

MAX_NAME: Final = 128
_NAME: Final = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_.-]*[A-Za-z0-9_])?")


def require_name(name: str) -> None:
    """Raise unless a key may be called so: letters, digits, ``_``, and ``.`` and ``-`` within.

    Raises:
        InvalidInputError: it may not.
    """
    if not _NAME.fullmatch(name):
        raise InvalidInputError("invalid key name")
    if len(name) > MAX_NAME:
        raise InvalidInputError(f"invalid key name: a name has at most {MAX_NAME} characters")


def keyring_name(tenant: str, name: str, generation: int) -> str:
    """Return the name of the keyring of a key; ``generation`` counts those of one name, from 1.

    A keyring outlives its key, as its destroyed versions do, and a name may be given again.
    """
    of_tenant = f"{tenant}/" if tenant else ""
    return f"{TRANSIT_PREFIX}{of_tenant}{name}" + (f"~{generation}" if generation > 1 else "")
