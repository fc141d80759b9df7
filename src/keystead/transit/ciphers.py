"""Authenticated encryption under any version of one Transit key. Spec: docs/spec/transit-v1.md, 4 to 6.

What the latest version of a key without derivation seals goes by its keyring, as everywhere. Here is the rest: older
versions, keys derived for a context, convergent ciphertexts, and what another Transit engine wrote under a key that was
brought in.
"""

from __future__ import annotations

import hashlib
import hmac
import threading
from collections import OrderedDict
from collections.abc import Container
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
from keystead.crypto.keyring import MESSAGES_PER_SALT, Keyring
from keystead.crypto.snapshot import LoadedKey
from keystead.errors import DecryptionError, InvalidCiphertextError
from keystead.ports import Random
from keystead.runtime import fork

DERIVED_INFO: Final = b"keystead transit"
HMAC_INFO: Final = b"hmac"
CONVERGENT_INFO: Final = b"keystead convergent"
REMEMBERED: Final = 1024
"""Ciphers that are remembered of one key, over all contexts and salts."""
_HASH: Final = SHA256()
_KEY_SIZE: Final = 32

Cipher = AESGCM | ChaCha20Poly1305


def hkdf(key: bytes | bytearray, info: bytes, size: int = _KEY_SIZE) -> bytes:
    """Return HKDF-SHA256 of a key without a salt."""
    return HKDF(_HASH, size, None, info).derive(bytes(key))


class Ciphers:
    """See the module. Thread- and fork-safe.

    Args:
        convergent: equal plaintexts of one context and associated data have equal ciphertexts.
        messages_per_salt: see ``Keyring``.
    """

    def __init__(
        self, ring: Keyring, random: Random, *, convergent: bool, messages_per_salt: int = MESSAGES_PER_SALT
    ) -> None:
        self._ring = ring
        self._random = random
        self._convergent = convergent
        self._messages_per_salt = messages_per_salt
        self._lock = threading.Lock()
        self._salts: dict[int, tuple[bytes, int]] = {}
        self._ciphers: OrderedDict[tuple[bytes, bytes | None], Cipher] = OrderedDict()
        fork.in_child(self._renew)

    def seal(self, version: LoadedKey, plaintext: bytes, aad: bytes, context: bytes | None) -> bytes:
        """Return an envelope under a version, or under the key that it derives for a context."""
        self._ring.get(version.id)
        if self._convergent:
            return self._seal_convergent(version, plaintext, aad, context)
        header = self._header(version, 1 + len(plaintext) // BLOCK, len(plaintext))
        nonce = self._random(NONCE_SIZE)
        cipher = self._cipher(version, header, context, remembers=True)
        return header + nonce + cipher.encrypt(nonce, plaintext, header + aad)

    def open(self, version: LoadedKey, blob: bytes, aad: bytes, context: bytes | None) -> bytes:
        """Return the plaintext of an envelope, or of what another engine wrote under a key from outside.

        Raises:
            InvalidCiphertextError: too short for one.
            DecryptionError: another key, version, context or associated data, or altered bytes.
        """
        self._ring.get(version.id)
        named = bytes((MAGIC, self._ring.suite)) + version.id.to_bytes(8, "big")
        if not blob.startswith(named):
            if version.outside:
                return self._open_foreign(version, blob, aad, context)
            _require_nonce(blob)
            raise DecryptionError(FAILED)
        if len(blob) < OVERHEAD:
            raise DecryptionError(FAILED)
        header = blob[:HEADER_SIZE]
        cipher = self._cipher(version, header, context, remembers=False)
        try:
            plaintext = cipher.decrypt(blob[26:38], blob[38:], header + aad)
        except InvalidTag:
            raise DecryptionError(FAILED) from None
        self._remember((header, context), cipher)
        return plaintext

    def keep(self, key_ids: Container[int]) -> None:
        """Forget what was derived of versions that are gone."""
        with self._lock:
            gone = [each for each in self._ciphers if int.from_bytes(each[0][2:10], "big") not in key_ids]
            for each in gone:
                del self._ciphers[each]
            self._salts = {key_id: salt for key_id, salt in self._salts.items() if key_id in key_ids}

    def _seal_convergent(self, version: LoadedKey, plaintext: bytes, aad: bytes, context: bytes | None) -> bytes:
        key = _derived(version, context)
        message = len(aad).to_bytes(8, "big") + aad + plaintext
        drawn = hmac.digest(hkdf(key, CONVERGENT_INFO), message, hashlib.sha256)
        header = Header(self._ring.suite, version.id, drawn[:SALT_SIZE]).to_bytes()
        nonce = drawn[SALT_SIZE : SALT_SIZE + NONCE_SIZE]
        self._ring.add_uses(version.id, 1, len(plaintext))
        return header + nonce + cipher_of(key, header).encrypt(nonce, plaintext, header + aad)

    def _header(self, version: LoadedKey, weight: int, size: int) -> bytes:
        with self._lock:
            header, left = self._salts.get(version.id, (b"", 0))
            if left < weight:
                header = Header(self._ring.suite, version.id, self._random(SALT_SIZE)).to_bytes()
                left = max(self._messages_per_salt, weight)
            self._salts[version.id] = (header, left - weight)
        self._ring.add_uses(version.id, weight, size)
        return header

    def _cipher(self, version: LoadedKey, header: bytes, context: bytes | None, *, remembers: bool) -> Cipher:
        known = self._ciphers.get((header, context))
        if known is not None:
            return known
        cipher = cipher_of(_derived(version, context), header)
        if remembers:
            self._remember((header, context), cipher)
        return cipher

    def _remember(self, place: tuple[bytes, bytes | None], cipher: Cipher) -> None:
        if self._convergent:
            return  # each has a salt of its own
        with self._lock:
            self._ciphers[place] = cipher
            self._ciphers.move_to_end(place)
            while len(self._ciphers) > REMEMBERED:
                self._ciphers.popitem(last=False)

    def _open_foreign(self, version: LoadedKey, blob: bytes, aad: bytes, context: bytes | None) -> bytes:
        """Open nonce, ciphertext and tag as Vault and OpenBao write them."""
        _require_nonce(blob)
        key = bytes(version.outside)
        if context is not None:
            key = _counter_kdf(key, context)[: len(key)]
        is_chacha = self._ring.suite == SUITE_CHACHA20_POLY1305
        cipher = ChaCha20Poly1305(key) if is_chacha else AESGCM(key)
        try:
            return cipher.decrypt(blob[:NONCE_SIZE], blob[NONCE_SIZE:], aad)
        except (InvalidTag, ValueError):
            raise DecryptionError(FAILED) from None

    def _renew(self) -> None:
        self._lock = threading.Lock()
        self._salts = {}


def _require_nonce(blob: bytes) -> None:
    if len(blob) < NONCE_SIZE:
        raise InvalidCiphertextError("invalid ciphertext length")


def _derived(version: LoadedKey, context: bytes | None) -> bytes:
    """Return the data key, or the one that it derives for a context."""
    return bytes(version.key) if context is None else hkdf(version.key, DERIVED_INFO + context)


def _counter_kdf(key: bytes, context: bytes) -> bytes:
    """Return the first 256 bits that NIST SP 800-108 derives in counter mode with HMAC-SHA256."""
    return hmac.digest(key, (0).to_bytes(4, "big") + context + (256).to_bytes(4, "big"), hashlib.sha256)
