"""Vectors of key material: contents of variables and files, and the keys in them. Imports nothing of ``src``."""

from __future__ import annotations

import base64
import hashlib

from scripts.gen_vectors_kms import Case, known_bytes

FIRST = known_bytes("key material first")
SECOND = known_bytes("key material second")
ENDS_IN_LF = FIRST[:31] + b"\n"
ENDS_IN_CRLF = FIRST[:30] + b"\r\n"
ENDS_IN_CR = FIRST[:31] + b"\r"
TEXT = b"0123456789abcdef0123456789abcdef"


def standard(key: bytes) -> bytes:
    """Return padded base64."""
    return base64.b64encode(key)


def url_safe(key: bytes) -> bytes:
    """Return padded base64 of the URL-safe alphabet."""
    return base64.urlsafe_b64encode(key)


def mixed_alphabets() -> bytes:
    """Return base64 with a character of each alphabet."""
    return standard(b"\xfb" * 16 + b"\xff" * 16).replace(b"+", b"-", 1)


READ: list[tuple[str, bytes, list[bytes]]] = [
    ("the key itself", FIRST, [FIRST]),
    ("the key itself, LF", FIRST + b"\n", [FIRST]),
    ("the key itself, CR LF", FIRST + b"\r\n", [FIRST]),
    ("a key that ends in LF", ENDS_IN_LF, [ENDS_IN_LF]),
    ("a key that ends in CR LF", ENDS_IN_CRLF, [ENDS_IN_CRLF]),
    ("a key that ends in CR, LF", ENDS_IN_CR + b"\n", [ENDS_IN_CR]),
    ("a key that ends in LF, LF", ENDS_IN_LF + b"\n", [ENDS_IN_LF]),
    ("a key that looks like text", TEXT, [TEXT]),
    ("base64", standard(FIRST), [FIRST]),
    ("base64, LF", standard(FIRST) + b"\n", [FIRST]),
    ("base64, CR LF", standard(FIRST) + b"\r\n", [FIRST]),
    ("base64 without padding", standard(FIRST).rstrip(b"="), [FIRST]),
    ("base64 without padding, LF", standard(FIRST).rstrip(b"=") + b"\n", [FIRST]),
    ("base64 without padding, CR LF", standard(FIRST).rstrip(b"=") + b"\r\n", [FIRST]),
    ("base64url", url_safe(FIRST), [FIRST]),
    ("base64url, LF", url_safe(FIRST) + b"\n", [FIRST]),
    ("base64url without padding", url_safe(FIRST).rstrip(b"="), [FIRST]),
    ("base64url without padding, LF", url_safe(FIRST).rstrip(b"=") + b"\n", [FIRST]),
    ("base64url without padding, CR LF", url_safe(FIRST).rstrip(b"=") + b"\r\n", [FIRST]),
    ("hexadecimal", FIRST.hex().encode(), [FIRST]),
    ("hexadecimal in upper case, LF", FIRST.hex().upper().encode() + b"\n", [FIRST]),
    ("hexadecimal, CR LF", FIRST.hex().encode() + b"\r\n", [FIRST]),
    ("blanks around it", b" \t" + standard(FIRST) + b" \n", [FIRST]),
    ("two, a comma", standard(FIRST) + b"," + SECOND.hex().encode(), [FIRST, SECOND]),
    ("two, a comma and a blank", standard(FIRST) + b", " + standard(SECOND) + b"\n", [FIRST, SECOND]),
    ("two lines", standard(SECOND) + b"\n" + standard(FIRST) + b"\n", [SECOND, FIRST]),
    ("two lines, CR LF", standard(SECOND) + b"\r\n" + standard(FIRST) + b"\r\n", [SECOND, FIRST]),
    ("two lines, the last not ended", standard(SECOND) + b"\n" + standard(FIRST), [SECOND, FIRST]),
    ("comments", b"# since 2026-10\n" + standard(FIRST) + b"\n  # before, kept\n" + standard(SECOND), [FIRST, SECOND]),
    ("the same twice", standard(FIRST) + b"," + standard(SECOND) + b"," + FIRST.hex().encode(), [FIRST, SECOND]),
]

REFUSED: list[tuple[str, bytes]] = [
    ("nothing", b""),
    ("a line ending", b"\n"),
    ("31 bytes", FIRST[:31]),
    ("33 bytes", FIRST + b"\x00"),
    ("the key itself, CR", FIRST + b"\r"),
    ("the key itself, two LF", FIRST + b"\n\n"),
    ("64 bytes that are no text", FIRST + SECOND),
    ("two keys themselves, LF between", FIRST + b"\n" + SECOND),
    ("base64 of 16 bytes", standard(FIRST[:16])),
    ("base64 of 33 bytes", standard(FIRST + b"\x00")),
    ("base64, two LF", standard(FIRST) + b"\n\n"),
    ("base64, CR", standard(FIRST) + b"\r"),
    ("base64, LF CR", standard(FIRST) + b"\n\r"),
    ("base64, wrong padding", standard(FIRST).rstrip(b"=") + b"=="),
    ("base64, unused bits set", standard(bytes(32)).rstrip(b"=")[:-1] + b"B"),
    ("base64 of both alphabets", mixed_alphabets()),
    ("base64 with a line break inside", standard(FIRST)[:20] + b"\n" + standard(FIRST)[20:]),
    ("base64 with a blank inside", standard(FIRST)[:20] + b" " + standard(FIRST)[20:]),
    ("63 hexadecimal digits", FIRST.hex().encode()[:63]),
    ("64 characters, one no hexadecimal digit", FIRST.hex().encode()[:63] + b"g"),
    ("0x in front", b"0x" + FIRST.hex().encode()),
    ("a comma at the end", standard(FIRST) + b","),
    ("two commas", standard(FIRST) + b",," + standard(SECOND)),
    ("an empty line", standard(FIRST) + b"\n\n" + standard(SECOND)),
    ("a comment alone", b"# no key here\n"),
    ("one that is none among others", standard(FIRST) + b"\nnone\n"),
    ("not ASCII", standard(FIRST)[:43] + "\u00e9".encode()),
    ("65 keys", b"\n".join(standard(known_bytes(f"key material {number}")) for number in range(65))),
]

NAMES: list[tuple[str, list[str]]] = [
    ("dates", ["2026-10-01.key", "2026-02-01.key", "2025-12-31.key"]),
    ("numbers of different length", ["v10", "v9", "v1"]),
    ("numbers inside", ["key-2-b", "key-2-a", "key-1-z"]),
    ("a number after text and text after it", ["b", "a10", "a2x", "a2"]),
    ("leading zeros", ["v11", "v10", "v010", "v9"]),
    ("a number before any text", ["key", "2030", "7"]),
]
"""Names in a folder, the newest first."""


def fingerprint(key: bytes) -> str:
    """Return a key's fingerprint."""
    return hashlib.sha256(b"keystead key fingerprint v1\x00" + key).digest()[:8].hex()


def local_kek_version(key: bytes) -> int:
    """Return the number that a key has as a version of a local KEK."""
    return 0x80000000 | int(fingerprint(key)[:8], 16) & 0x7FFFFFFF


def key_material_file() -> Case:
    """Return ``key-material-v1.json``."""
    return {
        "spec": "docs/spec/key-material-v1.md",
        "tests": [
            {
                "comment": comment,
                "content": content.hex(),
                "keys": [
                    {"key": key.hex(), "fingerprint": fingerprint(key), "local_kek_version": local_kek_version(key)}
                    for key in keys
                ],
                "looks_like_text": all(0x20 <= byte <= 0x7E for byte in keys[0]) and content[:32] == keys[0],
            }
            for comment, content, keys in READ
        ],
        "refused": [{"comment": comment, "content": content.hex()} for comment, content in REFUSED],
        "folders": [{"comment": comment, "newest_first": names} for comment, names in NAMES],
    }
