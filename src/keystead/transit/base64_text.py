"""Base64 as clients of Vault know it: standard alphabet, padded, line breaks ignored, errors told by their place.

And that of URLs (RFC 4648, 5) without padding, for signatures in the form of JSON Web Signatures.
"""

from __future__ import annotations

import base64
import binascii
from typing import Final

from keystead.errors import InvalidInputError

_ALPHABET: Final = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/")
_OF_URLS: Final = frozenset(_ALPHABET - {0x2B, 0x2F} | {0x2D, 0x5F})
_BREAKS: Final = b"\r\n"


def encode(data: bytes) -> str:
    """Return the text of ``data``."""
    return binascii.b2a_base64(data, newline=False).decode("ascii")


def decode(text: str) -> bytes:
    """Return the bytes of a text.

    Raises:
        InvalidInputError: it is none; the message names the first byte that is wrong, counted in UTF-8.
    """
    try:
        return binascii.a2b_base64(text, strict_mode=True)
    except ValueError:
        pass
    raw = text.encode("utf-8", "surrogatepass")
    broken = _first_wrong(raw)
    if broken is not None:
        raise InvalidInputError(f"illegal base64 data at input byte {broken}")
    return binascii.a2b_base64(raw.translate(None, _BREAKS))


def encode_url(data: bytes) -> str:
    """Return the text of ``data`` in the alphabet of URLs, without padding."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode("ascii")


def decode_url(text: str) -> bytes:
    """Return the bytes of such a text.

    Raises:
        InvalidInputError: it is none.
    """
    raw = text.encode("utf-8", "surrogatepass").translate(None, _BREAKS)
    if not _OF_URLS.issuperset(raw) or len(raw) % 4 == 1:
        raise InvalidInputError("illegal base64 data of URLs")
    return base64.urlsafe_b64decode(raw + b"=" * (-len(raw) % 4))


def _first_wrong(raw: bytes) -> int | None:
    """Return where Go's decoder stops, whose errors the clients know."""
    at = filled = 0
    while at < len(raw):
        byte = raw[at]
        if byte in _ALPHABET:
            filled = (filled + 1) % 4
        elif byte == 0x3D:
            return _wrong_end(raw, at, filled)
        elif byte not in _BREAKS:
            return at
        at += 1
    return None if filled == 0 else len(raw) - filled


def _wrong_end(raw: bytes, at: int, filled: int) -> int | None:
    """Return what is wrong from the first padding on, with so many characters before it in its group of four."""
    if filled < 2:
        return at
    rest = _after_breaks(raw, at + 1)
    if filled == 2:
        if rest == len(raw):
            return rest
        if raw[rest] != 0x3D:
            return rest - 1
        rest = _after_breaks(raw, rest + 1)
    return None if rest == len(raw) else rest


def _after_breaks(raw: bytes, at: int) -> int:
    while at < len(raw) and raw[at] in _BREAKS:
        at += 1
    return at
