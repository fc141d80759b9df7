"""Ciphertexts as clients send them: base64 in either alphabet. Spec: docs/spec/client-keys-v1.md, section 3."""

from __future__ import annotations

import re
from typing import Final

from keystead.devices.pairs import FAILED
from keystead.devices.unpadded import from_unpadded
from keystead.errors import DecryptionError

MAX_SIZE: Final = 2048
"""Decoded bytes, unless it is configured."""
OVERSIZE: Final = "Encrypted data size exceeds limit"

_WHITE: Final = str.maketrans("", "", " \t\r\n")
_STANDARD: Final = re.compile(r"([A-Za-z0-9+/]*)(={0,2})")
_URL_SAFE: Final = re.compile(r"([A-Za-z0-9_-]*)(={0,2})")
_TO_STANDARD: Final = str.maketrans("-_", "+/")


def decode_ciphertext(text: str, max_size: int = MAX_SIZE) -> bytes:
    """Return the bytes of a ciphertext.

    Raises:
        DecryptionError: it is longer than ``max_size`` bytes, before anything of it is decoded; it is no base64, or has
            spare bits that are not zero.
    """
    # What is twice as long as its longest form is not looked at, however much of it is white space.
    if len(text) > 2 * _text_size(max_size) or len(bare := text.translate(_WHITE)) > _text_size(max_size):
        raise DecryptionError(OVERSIZE)
    found = _STANDARD.fullmatch(bare) or _URL_SAFE.fullmatch(bare)
    if found is None or (found[2] and len(bare) % 4):
        raise DecryptionError(FAILED)
    try:
        raw = from_unpadded(found[1].translate(_TO_STANDARD))
    except ValueError:
        raise DecryptionError(FAILED) from None
    if len(raw) > max_size:
        raise DecryptionError(OVERSIZE)
    return raw


def _text_size(size: int) -> int:
    return 4 * -(-size // 3)
