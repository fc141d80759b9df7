"""Envelope v1: the bytes every local encryption gives, read and written without any key.

Spec: docs/spec/envelope-v1.md.
"""

from __future__ import annotations

import base64
import struct
from dataclasses import dataclass
from typing import Final

from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from keystead.errors import InvalidCiphertextError, InvalidInputError
from keystead.ports import Random

MAGIC: Final = 0xAE
SUITE_AES_256_GCM: Final = 0x01
SUITE_AES_128_GCM: Final = 0x04
SUITE_CHACHA20_POLY1305: Final = 0x05
SUITE_AES_256_GCM_CONVERGENT: Final = 0x06
SUITE_AES_128_GCM_CONVERGENT: Final = 0x07
SUITE_CHACHA20_POLY1305_CONVERGENT: Final = 0x08
SUITE_STREAM: Final = 0x10
HEADER_SIZE: Final = 26
NONCE_SIZE: Final = 12
TAG_SIZE: Final = 16
SALT_SIZE: Final = 16
OVERHEAD: Final = HEADER_SIZE + NONCE_SIZE + TAG_SIZE
MAX_PLAINTEXT: Final = 64 * 1024 * 1024
TEXT_PREFIX: Final = "ks1."
DATA_KEY_SIZE: Final = 32

_LAYOUT: Final = struct.Struct(">BBQ16s")
_INFO: Final = b"keystead v1"
_HASH: Final = SHA256()
_MAX_KEY_ID: Final = 2**63 - 1
_SUITE_NAMES: Final = {
    SUITE_AES_256_GCM: "AES-256-GCM",
    SUITE_AES_128_GCM: "AES-128-GCM",
    SUITE_CHACHA20_POLY1305: "ChaCha20-Poly1305",
    SUITE_AES_256_GCM_CONVERGENT: "AES-256-GCM convergent",
    SUITE_AES_128_GCM_CONVERGENT: "AES-128-GCM convergent",
    SUITE_CHACHA20_POLY1305_CONVERGENT: "ChaCha20-Poly1305 convergent",
    SUITE_STREAM: "AES-256-GCM stream",
}
_KEY_SIZES: Final = {
    SUITE_AES_256_GCM: 32,
    SUITE_AES_128_GCM: 16,
    SUITE_CHACHA20_POLY1305: 32,
    SUITE_AES_256_GCM_CONVERGENT: 32,
    SUITE_AES_128_GCM_CONVERGENT: 16,
    SUITE_CHACHA20_POLY1305_CONVERGENT: 32,
    SUITE_STREAM: 32,
}
MESSAGE_SUITES: Final = frozenset({SUITE_AES_256_GCM, SUITE_AES_128_GCM, SUITE_CHACHA20_POLY1305})
"""The suites of single messages with a random nonce."""
_CHACHA20: Final = frozenset({SUITE_CHACHA20_POLY1305, SUITE_CHACHA20_POLY1305_CONVERGENT})


@dataclass(frozen=True, slots=True)
class Header:
    """The first 26 bytes of an envelope: which suite, which data key, which salt.

    Raises:
        InvalidInputError: an unknown or reserved suite, an id outside 1 to 2**63 - 1, or a salt that is not 16 bytes.
    """

    suite: int
    key_id: int
    salt: bytes

    def __post_init__(self) -> None:
        if self.suite not in _SUITE_NAMES:
            raise InvalidInputError(f"suite 0x{self.suite:02x} is not one this release reads")
        if not 0 < self.key_id <= _MAX_KEY_ID:
            raise InvalidInputError("a data key id is between 1 and 2**63 - 1")
        if len(self.salt) != SALT_SIZE:
            raise InvalidInputError(f"a salt is {SALT_SIZE} bytes")

    def to_bytes(self) -> bytes:
        """Return the 26 bytes."""
        return _LAYOUT.pack(MAGIC, self.suite, self.key_id, self.salt)

    @classmethod
    def from_bytes(cls, data: bytes) -> Header:
        """Read the 26 bytes ``data`` begins with; what follows is not looked at.

        Raises:
            InvalidCiphertextError: too short, another magic, an unknown or reserved suite, or an id that is 0 or has
                its top bit set.
        """
        if len(data) < HEADER_SIZE:
            raise InvalidCiphertextError("too short for an envelope")
        magic, suite, key_id, salt = _LAYOUT.unpack_from(data)
        if magic != MAGIC:
            raise InvalidCiphertextError("not an envelope: it does not begin with 0xAE")
        try:
            return cls(suite, key_id, salt)
        except InvalidInputError as exc:
            raise InvalidCiphertextError(f"not an envelope: {exc}") from None


@dataclass(frozen=True, slots=True)
class Inspection:
    """What an envelope tells without a key. Nothing of it is authenticated.

    ``plaintext_size`` is None for a stream, whose end need not have been given.
    """

    suite: int
    suite_name: str
    data_key_id: int
    salt: bytes
    size: int
    plaintext_size: int | None


def parse_header(blob: bytes) -> Header:
    """Return the header of an envelope; of a stream, its first 26 bytes are enough.

    Raises:
        InvalidCiphertextError: as ``Header.from_bytes``, and when it is too short for its suite.
    """
    header = Header.from_bytes(blob)
    if header.suite != SUITE_STREAM and len(blob) < OVERHEAD:
        raise InvalidCiphertextError("the envelope is truncated")
    return header


def is_envelope(value: bytes) -> bool:
    """Return whether ``value`` has the form of an envelope v1 of any store."""
    try:
        parse_header(value)
    except InvalidCiphertextError:
        return False
    return True


def derive_key(data_key: bytes | bytearray, header: bytes) -> bytes:
    """Return the cipher key of ``header``'s suite and salt under ``data_key`` (32 bytes).

    HKDF-SHA256 without salt, info ``"keystead v1" || suite byte || salt``, as long as the suite's key.

    Raises:
        InvalidCiphertextError: the header's suite is unknown or reserved.
        InvalidInputError: the data key is not 32 bytes or the header not 26.
    """
    if len(data_key) != DATA_KEY_SIZE:
        raise InvalidInputError(f"a data key is {DATA_KEY_SIZE} bytes")
    if len(header) != HEADER_SIZE:
        raise InvalidInputError(f"a header is {HEADER_SIZE} bytes")
    size = _KEY_SIZES.get(header[1])
    if size is None:
        raise InvalidCiphertextError(f"suite 0x{header[1]:02x} is not one this release reads")
    return HKDF(_HASH, size, None, _INFO + header[1:2] + header[10:]).derive(data_key)


def cipher_of(data_key: bytes | bytearray, header: bytes) -> AESGCM | ChaCha20Poly1305:
    """Return the cipher of ``header``'s suite under the key that ``derive_key`` gives; errors as there."""
    key = derive_key(data_key, header)
    return ChaCha20Poly1305(key) if header[1] in _CHACHA20 else AESGCM(key)


def new_key_id(random: Random) -> int:
    """Return a random data key id: 63 bits, never 0."""
    while True:
        key_id = int.from_bytes(random(8), "big") >> 1
        if key_id:
            return key_id


def to_text(blob: bytes) -> str:
    """Return the text form: ``ks1.`` and unpadded base64url."""
    return TEXT_PREFIX + base64.urlsafe_b64encode(blob).rstrip(b"=").decode("ascii")


def from_text(text: str) -> bytes:
    """Return the bytes of a text form. Each envelope has exactly one text form; every other spelling is refused.

    Raises:
        InvalidCiphertextError: another prefix, padding, foreign characters (white space included), an impossible
            length, or spare bits that are not zero.
        InvalidInputError: not a ``str``.
    """
    if not isinstance(text, str):
        raise InvalidInputError(f"the text form is str, not {type(text).__name__}")
    if not text.startswith(TEXT_PREFIX):
        raise InvalidCiphertextError(f"not the text form of an envelope: it does not begin with {TEXT_PREFIX!r}")
    body = text[len(TEXT_PREFIX) :]
    try:
        blob = base64.urlsafe_b64decode(body + "=" * (-len(body) % 4))
    except ValueError:
        raise InvalidCiphertextError("malformed text form of an envelope") from None
    if to_text(blob) != text:
        raise InvalidCiphertextError("malformed text form of an envelope")
    return blob


def as_binary(envelope: bytes | bytearray | memoryview | str) -> bytes:
    """Return an envelope in bytes-like or text form as bytes.

    Raises:
        InvalidCiphertextError: a malformed text form.
        InvalidInputError: neither text nor bytes-like.
    """
    if isinstance(envelope, str):
        return from_text(envelope)
    try:
        return bytes(memoryview(envelope))
    except (TypeError, ValueError):
        raise InvalidInputError(f"expected an envelope in bytes or text, not {type(envelope).__name__}") from None


def inspect(blob: bytes | str) -> Inspection:
    """Return what ``blob`` (binary or text form) tells without a key; of a stream, its first 26 bytes are enough.

    Raises:
        InvalidCiphertextError: not an envelope.
    """
    raw = from_text(blob) if isinstance(blob, str) else blob
    header = parse_header(raw)
    return Inspection(
        suite=header.suite,
        suite_name=_SUITE_NAMES[header.suite],
        data_key_id=header.key_id,
        salt=header.salt,
        size=len(raw),
        plaintext_size=None if header.suite == SUITE_STREAM else len(raw) - OVERHEAD,
    )
