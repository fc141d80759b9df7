"""Ids of keys and devices: how one is made, and which are taken. Spec: docs/spec/client-keys-v1.md, section 1."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Final
from unicodedata import category, ucd_3_2_0

from keystead.errors import InvalidInputError
from keystead.ports import Random

MAX_NAME: Final = 128
"""Characters of an id."""
_KEY_ID: Final = re.compile(rf"[!-~]{{1,{MAX_NAME}}}")
_RANDOM_SIZE: Final = 12
_REFUSED: Final = frozenset({"Cc", "Cf", "Co", "Cs", "Zl", "Zp"})


def new_key_id(now: datetime, random: Random) -> str:
    """Return an id that nobody can guess, and that sorts behind those made earlier."""
    return f"key_{int(now.timestamp() * 1000)}_{random(_RANDOM_SIZE).hex()}"


def checked_key_id(text: object) -> str:
    """Return a key id that somebody sent; it is opaque.

    Raises:
        InvalidInputError: not 1 to 128 printable ASCII characters.
    """
    if not isinstance(text, str) or not _KEY_ID.fullmatch(text):
        raise InvalidInputError(f"a key id is a text of 1 to {MAX_NAME} printable ASCII characters")
    return text


def checked_name(text: object, what: str) -> str:
    """Return a device id or application version that somebody sent, in NFC.

    Args:
        what: to be named by the error, as ``"deviceId"``.

    Raises:
        InvalidInputError: not 1 to 128 printable characters.
    """
    name = nfc(text) if isinstance(text, str) else ""
    is_printable = not any(category(sign) in _REFUSED for sign in name)
    if not (is_printable and name.strip() and len(name) <= MAX_NAME):
        raise InvalidInputError(f"{what} is a text of 1 to {MAX_NAME} printable characters")
    return name


def nfc(text: str) -> str:
    """Return the NFC of ``text`` by Unicode 3.2, which every Python release has: what is stored must stay equal."""
    return ucd_3_2_0.normalize("NFC", text)
