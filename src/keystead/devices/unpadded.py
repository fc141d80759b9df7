"""Base64 of the standard alphabet without padding, of which each string of bytes has one form."""

from __future__ import annotations

from binascii import a2b_base64, b2a_base64


def to_unpadded(raw: bytes) -> str:
    """Return the form of ``raw``."""
    return b2a_base64(raw, newline=False).decode("ascii").rstrip("=")


def from_unpadded(text: str) -> bytes:
    """Return what ``text`` is the form of.

    Raises:
        ValueError: of nothing: another character, an impossible length, or spare bits that are not zero.
    """
    raw = a2b_base64(text + "=" * (-len(text) % 4), strict_mode=True)
    if to_unpadded(raw) != text:
        raise ValueError("spare bits that are not zero")
    return raw
