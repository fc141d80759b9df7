"""Transit's texts: ``vault:vN:`` and base64, each with one spelling only.

The server's own decoder takes ``vault:v0:`` for version 1, leading zeros, line breaks and spare bits. A ciphertext that
may be spelt in several ways is one that can be altered unnoticed, so they are refused here.
"""

from __future__ import annotations

import base64
import binascii
import re
from typing import Final

_FORM: Final = re.compile(r"vault:v([1-9][0-9]{0,9}):([A-Za-z0-9+/]*={0,2})")
MIN_CIPHERTEXT_SIZE: Final = 12 + 16
"""A nonce and a tag."""


def parse(text: str) -> tuple[int, bytes] | None:
    """Return version and bytes of a ``vault:vN:`` text, or None where it is spelt in another way than ours."""
    match = _FORM.fullmatch(text)
    if match is None:
        return None
    raw = decode(match[2])
    return None if raw is None else (int(match[1]), raw)


def parse_ciphertext(ciphertext: bytes) -> tuple[str, int] | None:
    """Return text and version of a ciphertext as it is stored, or None where it is none."""
    try:
        text = ciphertext.decode("ascii")
    except UnicodeDecodeError:
        return None
    parsed = parse(text)
    if parsed is None or len(parsed[1]) < MIN_CIPHERTEXT_SIZE:
        return None
    return text, parsed[0]


def join(version: int, raw: bytes) -> str:
    """Return the ``vault:vN:`` text of some bytes."""
    return f"vault:v{version}:{encode(raw)}"


def encode(raw: bytes) -> str:
    """Return base64 as Transit takes it."""
    return base64.b64encode(raw).decode("ascii")


def decode(text: str) -> bytes | None:
    """Return the bytes of a base64 text, or None where it is not the one spelling of them."""
    try:
        raw = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return None
    return raw if base64.b64encode(raw).decode("ascii") == text else None
