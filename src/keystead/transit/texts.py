"""The form of ciphertexts, signatures and HMACs: ``vault:v<version>:`` and base64."""

from __future__ import annotations

import re
from typing import Final

from keystead.errors import InvalidInputError
from keystead.transit import base64_text

PREFIX: Final = "vault:v"
_VERSION: Final = re.compile(r"[+-]?[0-9]{1,18}", re.ASCII)


def written(version: int, data: bytes, *, is_url: bool = False) -> str:
    """Return the text of what a version made; with ``is_url`` in the base64 of URLs."""
    return f"{PREFIX}{version}:{base64_text.encode_url(data) if is_url else base64_text.encode(data)}"


def parted(text: str, what: str) -> tuple[int, str]:
    """Return the version that a text names, and the base64 behind it.

    Args:
        what: it should be, for the message: ``ciphertext``, ``signature`` or ``HMAC``.

    Raises:
        InvalidInputError: it has another form.
    """
    if not text.startswith(PREFIX):
        raise InvalidInputError(f"invalid {what}: no prefix")
    version, colon, rest = text[len(PREFIX) :].partition(":")
    if not colon:
        raise InvalidInputError(f"invalid {what}: wrong number of fields")
    if not _VERSION.fullmatch(version):
        raise InvalidInputError(f"invalid {what}: version number could not be decoded")
    return int(version), rest


def sealed_bytes(text: str) -> bytes:
    """Return the bytes of a ciphertext out of their base64.

    Raises:
        InvalidInputError: it is none.
    """
    try:
        return base64_text.decode(text)
    except InvalidInputError:
        raise InvalidInputError("invalid ciphertext: could not decode base64") from None
