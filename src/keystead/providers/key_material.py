"""Keys that somebody else keeps: how they are written in a variable or a file. Spec: docs/spec/key-material-v1.md.

What cannot be read is told by ``problem``, not raised: frames of an exception would show the keys to error trackers.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Final

from keystead.model import SecretBytes

KEY_SIZE: Final = 32
MAX_KEYS: Final = 64
MAX_CONTENT_SIZE: Final = 64 * 1024
HOW_TO_MAKE_ONE: Final = "32 random bytes as base64 or hex, as `openssl rand -base64 32` prints them"

_FINGERPRINT_DOMAIN: Final = b"keystead key fingerprint v1\x00"
_FINGERPRINT_SIZE: Final = 8
_STANDARD: Final = re.compile(rb"[A-Za-z0-9+/]{43}=?\Z")
_URL_SAFE: Final = re.compile(rb"[A-Za-z0-9_-]{43}=?\Z")
_PIECES: Final = re.compile(rb"([0-9]+)")


@dataclass(frozen=True, slots=True)
class KeyMaterial:
    """A key, and the 16 hexadecimal digits that name it."""

    key: SecretBytes = field(repr=False)
    fingerprint: str

    @classmethod
    def of(cls, key: bytes) -> KeyMaterial:
        """Return a key with its fingerprint."""
        return cls(SecretBytes(key), fingerprint(key))


@dataclass(frozen=True, slots=True)
class Decoded:
    """What a content holds: keys, the newest first; or what is wrong with it.

    ``looks_like_text`` says that the key is 32 printable characters: a password or a shorter key, one should think.
    """

    keys: tuple[KeyMaterial, ...] = ()
    problem: str | None = None
    looks_like_text: bool = False


def fingerprint(key: bytes) -> str:
    """Return the 16 hexadecimal digits that name a key and tell nothing of it."""
    return sha256(_FINGERPRINT_DOMAIN + key).digest()[:_FINGERPRINT_SIZE].hex()


def decode(content: bytes | bytearray) -> Decoded:
    """Return the keys in the content of a variable or a file. Raises nothing."""
    raw = _raw_key(content)
    if raw is not None:
        return Decoded((KeyMaterial.of(raw),), looks_like_text=all(0x20 <= byte <= 0x7E for byte in raw))
    if len(content) > MAX_CONTENT_SIZE:
        return Decoded(problem="longer than 64 KiB")
    keys = []
    for number, entry in enumerate(_entries(bytes(content)), start=1):
        key = _text_key(entry)
        if key is None:
            return Decoded(problem=f"its entry {number} is neither 43 or 44 characters of base64 nor 64 of hex")
        keys.append(KeyMaterial.of(key))
    return distinct(keys)


def distinct(keys: Iterable[KeyMaterial]) -> Decoded:
    """Return keys without those that stand there twice, in their order."""
    found: dict[str, KeyMaterial] = {}
    for key in keys:
        if found.setdefault(key.fingerprint, key).key != key.key:
            return Decoded(problem=f"two of its keys have the fingerprint {key.fingerprint}; replace one of them")
    if not found:
        return Decoded(problem="empty")
    if len(found) > MAX_KEYS:
        return Decoded(problem=f"more than {MAX_KEYS} keys")
    return Decoded(tuple(found.values()))


def newest_first(names: Iterable[bytes]) -> list[bytes]:
    """Return names of files in the order of section 5 of the specification, the newest first."""
    return sorted(names, key=_order, reverse=True)


def _raw_key(content: bytes | bytearray) -> bytes | None:
    size = len(content)
    if size == KEY_SIZE or (size == KEY_SIZE + 1 and content.endswith(b"\n")):
        return bytes(content[:KEY_SIZE])
    return bytes(content[:KEY_SIZE]) if size == KEY_SIZE + 2 and content.endswith(b"\r\n") else None


def _entries(content: bytes) -> list[bytes]:
    if not content:
        return []
    lines = content.replace(b"\r\n", b"\n").removesuffix(b"\n").split(b"\n")
    kept = [line for line in lines if not line.lstrip(b" \t").startswith(b"#")]
    return [entry.strip(b" \t") for line in kept for entry in line.split(b",")]


def _text_key(entry: bytes) -> bytes | None:
    """Return the key that ``entry`` writes in base64 or hex, or None."""
    try:
        if len(entry) == 2 * KEY_SIZE:
            return binascii.unhexlify(entry)
        if not (_STANDARD.match(entry) or _URL_SAFE.match(entry)):
            return None
        key = base64.b64decode(entry[:43].translate(_TO_STANDARD) + b"=")
    except ValueError:
        return None
    # The last character has two bits more than the key: of the four ways to write a key, one is taken.
    return key if base64.b64encode(key)[42:43] == entry[42:43].translate(_TO_STANDARD) else None


_TO_STANDARD: Final = bytes.maketrans(b"-_", b"+/")


def _order(name: bytes) -> tuple[Sequence[bytes | int], bytes]:
    # Splitting alternates text and digits, and begins with text: like is compared with like.
    return [int(piece) if number % 2 else piece for number, piece in enumerate(_PIECES.split(name))], name
