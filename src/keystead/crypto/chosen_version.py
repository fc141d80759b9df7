"""Encrypting under a version that the caller names, where its readers have been told which one it is.

Each message has a salt, and so a key, of its own: no limit on messages under one salt is to be kept for a version that
is not the active one any more. Spec: docs/spec/envelope-v1.md.
"""

from __future__ import annotations

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from keystead.crypto.envelope import NONCE_SIZE, SUITE_AES_256_GCM, derive_key
from keystead.crypto.keyring import Keyring
from keystead.errors import InvalidInputError
from keystead.ports import Random


def seal_under(ring: Keyring, key_id: int, plaintext: bytes, encoded_context: bytes, *, random: Random) -> bytes:
    """Return an envelope of less than 64 KiB of ``plaintext`` under the version ``key_id`` of ``ring``.

    Raises:
        InvalidInputError: the keyring's keys encrypt no messages.
        KMSError: the gate's refusal, no active version, or that version may not be used any more.
    """
    if ring.suite != SUITE_AES_256_GCM:
        raise InvalidInputError(f"keyring {ring.name!r} does not encrypt single messages; use another")
    header, key = ring.new_header(1, key_id)
    nonce = random(NONCE_SIZE)
    ring.byte_count.add(len(plaintext))
    return header + nonce + AESGCM(derive_key(key.key, header)).encrypt(nonce, plaintext, header + encoded_context)
