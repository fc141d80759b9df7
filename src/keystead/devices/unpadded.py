"""Base64 of the standard alphabet without padding, of which each string of bytes has one form."""

from __future__ import annotations

import base64


def to_unpadded(raw: bytes) -> str:
    """Return the form of ``raw``."""
    return base64.b64encode(raw).decode("ascii").rstrip("=")


def from_unpadded(text: str) -> bytes:
    """Return what ``text`` is the form of.

    Raises:
        ValueError: of nothing: another character, an impossible length, or spare bits that are not zero.
    """
    raw = base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    if to_unpadded(raw) != text:
        raise ValueError("spare bits that are not zero")
    return raw
