"""Ciphertexts of a PKCS#11 token as bytes. Spec: docs/spec/pkcs11-wrap-v1.md."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from struct import Struct
from typing import Final

from keystead.crypto.context import encode_context
from keystead.errors import DecryptionError

MAX_GCM_PLAINTEXT: Final = 64 * 1024
MAX_WRAP_PLAINTEXT: Final = 4096
NONCE_SIZE: Final = 12
SALT_SIZE: Final = 16
TAG_SIZE: Final = 16

_MARK: Final = b"\xaa\x01"
_DOMAIN: Final = b"keystead pkcs11 wrap v1\0"
_BINDING_SIZE: Final = 32
_BLOCK: Final = 8
_LEAST_WRAPPED: Final = 64
_ID_BITS: Final = 32
_u32: Final = Struct(">I")
FAILED: Final = "decryption failed"


class WrapMechanism(IntEnum):
    """The mechanisms that encrypt; the value is the ciphertext's third byte, ``algorithm`` the name in records."""

    AES_GCM = 1
    AES_KEY_WRAP = 2

    @property
    def algorithm(self) -> str:
        """The name of the mechanism in PKCS#11."""
        return f"CKM_{self.name}"

    @property
    def max_plaintext(self) -> int:
        """The longest plaintext, in bytes."""
        return MAX_GCM_PLAINTEXT if self is WrapMechanism.AES_GCM else MAX_WRAP_PLAINTEXT


@dataclass(frozen=True, slots=True)
class WrapHeader:
    """What a ciphertext says in clear: how it was made, and by which version."""

    mechanism: WrapMechanism
    key_id: bytes

    def __bytes__(self) -> bytes:
        return _MARK + bytes((self.mechanism, len(self.key_id))) + self.key_id


def parse_ciphertext(ciphertext: bytes) -> tuple[WrapHeader, bytes]:
    """Return a ciphertext's header and what follows it.

    Raises:
        DecryptionError: it is none, or truncated.
    """
    at = len(_MARK) + 2
    length = ciphertext[3] if len(ciphertext) > 3 and ciphertext[:2] == _MARK else 0
    body = ciphertext[at + length :]
    try:
        header = WrapHeader(WrapMechanism(ciphertext[2] if length else 0), bytes(ciphertext[at : at + length]))
    except ValueError:
        raise DecryptionError(FAILED) from None
    is_wrapped = header.mechanism is WrapMechanism.AES_KEY_WRAP
    if len(body) < (_LEAST_WRAPPED if is_wrapped else NONCE_SIZE + TAG_SIZE) or (is_wrapped and len(body) % _BLOCK):
        raise DecryptionError(FAILED)
    return header, body


def gcm_aad(header: WrapHeader, context: Mapping[str, str] | None) -> bytes:
    """Return the additional data of AES-GCM; ``InvalidInputError`` for a context that cannot be encoded."""
    return bytes(header) + encode_context(context)


def wrap_payload(header: WrapHeader, context: Mapping[str, str] | None, plaintext: bytes, salt: bytes) -> bytes:
    """Return what is wrapped: salt, binding, length, plaintext and padding."""
    length = _u32.pack(len(plaintext))
    padding = bytes(-(SALT_SIZE + _BINDING_SIZE + len(length) + len(plaintext)) % _BLOCK)
    return salt + _binding(header, context) + length + plaintext + padding


def open_payload(header: WrapHeader, context: Mapping[str, str] | None, payload: bytes) -> bytes:
    """Return the plaintext inside an unwrapped payload.

    Raises:
        DecryptionError: another context, or a payload that ``wrap_payload`` does not make.
    """
    start = SALT_SIZE + _BINDING_SIZE + _u32.size
    if len(payload) < start or not hmac.compare_digest(
        payload[SALT_SIZE : SALT_SIZE + _BINDING_SIZE], _binding(header, context)
    ):
        raise DecryptionError(FAILED)
    (length,) = _u32.unpack_from(payload, SALT_SIZE + _BINDING_SIZE)
    padding = payload[start + length :]
    if len(payload) % _BLOCK or start + length > len(payload) or len(padding) >= _BLOCK or any(padding):
        raise DecryptionError(FAILED)
    return payload[start : start + length]


def next_key_id(newest: bytes, random: bytes) -> bytes:
    """Return the ``CKA_ID`` of the version after ``newest``; ``random`` are four bytes."""
    number = ((int.from_bytes(newest, "big") >> _ID_BITS) + 1 << _ID_BITS) | int.from_bytes(random, "big")
    return number.to_bytes(max(8, len(newest), (number.bit_length() + 7) // 8), "big")


def id_order(key_id: bytes) -> tuple[int, int]:
    """Return what the versions of a key are sorted by, the newest last."""
    return int.from_bytes(key_id, "big"), len(key_id)


def _binding(header: WrapHeader, context: Mapping[str, str] | None) -> bytes:
    return hashlib.sha256(_DOMAIN + bytes(header) + encode_context(context)).digest()
