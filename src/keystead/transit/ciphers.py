"""Authenticated encryption under any version of one Transit key. Spec: docs/spec/transit-v1.md, 4 to 6.

What the latest version of a key without derivation seals goes by its keyring, as everywhere. Here is the rest: older
versions, keys derived for a context, convergent ciphertexts, and what another Transit engine wrote under a key that was
brought in. Each message has a salt, and so a key, of its own.
"""

from __future__ import annotations

import hashlib
import hmac
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from keystead.crypto.envelope import (
    HEADER_SIZE,
    MAGIC,
    NONCE_SIZE,
    OVERHEAD,
    SALT_SIZE,
    SUITE_CHACHA20_POLY1305,
    Header,
    cipher_of,
)
from keystead.crypto.hot_path import BLOCK, FAILED
from keystead.crypto.keyring import Keyring
from keystead.crypto.snapshot import LoadedKey
from keystead.errors import DecryptionError, InvalidCiphertextError
from keystead.ports import Random

DERIVED_INFO: Final = b"keystead transit"
HMAC_INFO: Final = b"hmac"
CONVERGENT_INFO: Final = b"keystead convergent"
MARK: Final = b"\xff"
"""What stands before associated data. No encoded context begins so: nothing that was encrypted otherwise opens here."""
_HASH: Final = SHA256()
_KEY_SIZE: Final = 32


def hkdf(key: bytes | bytearray, info: bytes, size: int = _KEY_SIZE) -> bytes:
    """Return HKDF-SHA256 of a key without a salt."""
    return HKDF(_HASH, size, None, info).derive(bytes(key))


def seal(
    ring: Keyring, version: LoadedKey, plaintext: bytes, *, aad: bytes, context: bytes | None, random: Random
) -> bytes:
    """Return an envelope under a version, or under the key that it derives for a context.

    Raises:
        KMSError: as ``Keyring.seal``.
    """
    header, key = ring.new_header(1 + len(plaintext) // BLOCK, version.id)
    ring.byte_count.add(len(plaintext))
    nonce = random(NONCE_SIZE)
    return header + nonce + cipher_of(_derived(key, context), header).encrypt(nonce, plaintext, header + MARK + aad)


def seal_convergent(ring: Keyring, version: LoadedKey, plaintext: bytes, *, aad: bytes, context: bytes | None) -> bytes:
    """Return the one envelope that a plaintext has under a version, a context and associated data.

    Salt and nonce are 28 bytes of HMAC-SHA256 over what is sealed; errors as ``seal``.
    """
    _, loaded = ring.new_header(1 + len(plaintext) // BLOCK, version.id)
    ring.byte_count.add(len(plaintext))
    key = _derived(loaded, context)
    message = len(aad).to_bytes(8, "big") + aad + plaintext
    drawn = hmac.digest(hkdf(key, CONVERGENT_INFO), message, hashlib.sha256)
    header = Header(ring.suite, version.id, drawn[:SALT_SIZE]).to_bytes()
    nonce = drawn[SALT_SIZE : SALT_SIZE + NONCE_SIZE]
    return header + nonce + cipher_of(key, header).encrypt(nonce, plaintext, header + MARK + aad)


def open_sealed(ring: Keyring, version: LoadedKey, blob: bytes, *, aad: bytes, context: bytes | None) -> bytes:
    """Return the plaintext of an envelope, or of what another engine wrote under a key from outside.

    Raises:
        InvalidCiphertextError: too short for one.
        DecryptionError: another key, version, context or associated data, or altered bytes.
    """
    key = ring.get(version.id)
    named = bytes((MAGIC, ring.suite)) + version.id.to_bytes(8, "big")
    if len(blob) < NONCE_SIZE:
        raise InvalidCiphertextError("invalid ciphertext length")
    try:
        if key.outside and not blob.startswith(named):
            return _foreign(ring.suite, bytes(key.outside), context).decrypt(blob[:NONCE_SIZE], blob[NONCE_SIZE:], aad)
        if len(blob) < OVERHEAD or not blob.startswith(named):
            raise DecryptionError(FAILED)
        header = blob[:HEADER_SIZE]
        return cipher_of(_derived(key, context), header).decrypt(blob[26:38], blob[38:], header + MARK + aad)
    except (InvalidTag, ValueError):
        raise DecryptionError(FAILED) from None


def _foreign(suite: int, key: bytes, context: bytes | None) -> AESGCM | ChaCha20Poly1305:
    """Return the cipher of Vault and OpenBao, which write nonce, ciphertext and tag."""
    if context is not None:
        key = _counter_kdf(key, context)[: len(key)]
    return ChaCha20Poly1305(key) if suite == SUITE_CHACHA20_POLY1305 else AESGCM(key)


def _derived(version: LoadedKey, context: bytes | None) -> bytes:
    """Return the data key, or the one that it derives for a context."""
    return bytes(version.key) if context is None else hkdf(version.key, DERIVED_INFO + context)


def _counter_kdf(key: bytes, context: bytes) -> bytes:
    """Return the first 256 bits that NIST SP 800-108 derives in counter mode with HMAC-SHA256."""
    return hmac.digest(key, (0).to_bytes(4, "big") + context + (256).to_bytes(4, "big"), hashlib.sha256)
