"""A keyring's usable versions in memory: encrypting and decrypting without lock, await or I/O.

A keyring holds one immutable ``KeyringSnapshot``, swapped by one assignment. What encrypts is one tuple (header,
cipher, nonces), read once a call, so that a swap in mid-call does no harm. Every process draws a salt of its own per
data key; the refill of the nonce pool counts messages against it, so that the limit holds without a counter that has
to survive a crash. Specs: docs/spec/envelope-v1.md; salts and nonces: docs/adr/0005-limits-by-construction.md.
"""

from __future__ import annotations

import contextlib
import os
import struct
import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Final, NoReturn, SupportsIndex, TypeAlias

from cryptography.exceptions import InvalidTag

from keystead.crypto import hot_path
from keystead.crypto.envelope import (
    HEADER_SIZE,
    MAX_PLAINTEXT,
    MESSAGE_SUITES,
    NONCE_SIZE,
    SALT_SIZE,
    SUITE_AES_256_GCM,
    Header,
    as_binary,
    cipher_of,
    parse_header,
)
from keystead.crypto.hot_path import BLOCK, FAILED, ByteCount, Bytes, LocalDecrypt, LocalEncrypt, no_cipher
from keystead.crypto.snapshot import KeyringSnapshot, LoadedKey, cure_of
from keystead.errors import (
    DataKeyNotLoadedError,
    DecryptionError,
    InvalidInputError,
    KeyStateError,
    KMSError,
    NoActiveKeyError,
)
from keystead.ports import Random
from keystead.runtime import fork

MESSAGES_PER_SALT: Final = 2**31
POOL_START: Final = 8
POOL_MOST: Final = 1024
DERIVED_LIMIT: Final = 4096
"""At most so many derived ciphers of a keyring, in two generations: the younger is read by the hot path."""

Cipher: TypeAlias = Callable[[bytes, bytes, bytes], bytes]
"""Nonce, data, AAD -> data."""
Sealer: TypeAlias = tuple[bytes, Cipher, Callable[[], bytes]]
Gate: TypeAlias = Callable[["Keyring", bool], KMSError | None]


class Keyring:
    """The usable versions of one named purpose: one active, the rest decrypt-only. Thread- and fork-safe.

    ``local_encrypt(plaintext, *, context=None)`` takes at most 64 MiB of bytes-like data and returns an envelope v1.
    ``local_decrypt(ciphertext, *, context=None)`` takes an envelope or its ``ks1.`` text. Both are closures over the
    keyring, so that a reference kept by the caller follows every rotation.

    Args:
        name: the keyring's name.
        suite: the suite byte its data keys serve.
        random: source of salts and nonces.
        messages_per_salt: how many messages one salt carries before another is drawn.
        gate: asked off the hot path (each refill, each header not seen before, and whenever nothing is loaded) with
            the keyring and whether it is to encrypt; answers why that must not be, or None.
        owner_of: tells which keyring of this process a foreign data key id belongs to, or None.
        is_strict: ask the gate for each message.
    """

    __slots__ = (
        "__weakref__",
        "_aged",
        "_bytes",
        "_gate",
        "_left",
        "_lock",
        "_messages_per_salt",
        "_owner_of",
        "_pool",
        "_pool_size",
        "_random",
        "_reserved",
        "byte_count",
        "derived",
        "is_strict",
        "local_decrypt",
        "local_encrypt",
        "name",
        "sealer",
        "snapshot",
        "suite",
    )

    local_encrypt: LocalEncrypt
    local_decrypt: LocalDecrypt
    byte_count: ByteCount

    def __init__(
        self,
        name: str,
        *,
        suite: int = SUITE_AES_256_GCM,
        random: Random = os.urandom,
        messages_per_salt: int = MESSAGES_PER_SALT,
        gate: Gate = lambda ring, encrypting: None,
        owner_of: Callable[[int], str | None] = lambda key_id: None,
        is_strict: bool = False,
    ) -> None:
        if messages_per_salt < 1:
            raise InvalidInputError("messages_per_salt must be at least 1")
        self.name = name
        self.suite = suite
        self.is_strict = is_strict
        self.snapshot = KeyringSnapshot()
        self._gate = gate
        self._random = random
        self._messages_per_salt = min(messages_per_salt, MESSAGES_PER_SALT)
        self._owner_of = owner_of
        self._lock = threading.Lock()
        self._reserved: dict[int, int] = {}
        self._bytes: dict[int, int] = {}
        self._pool: list[bytes] = []
        self._pool_size = POOL_START
        self.sealer: Sealer = (b"", no_cipher, self._pool.pop)
        self.derived: dict[bytes, Cipher] = {}
        self._aged: dict[bytes, Cipher] = {}
        self._drop_sealer()
        self.local_encrypt, self.local_decrypt, self.byte_count = hot_path.bind(self)
        fork.in_child(self.renew)

    def __repr__(self) -> str:
        active = self.snapshot.active_key
        return f"<Keyring {self.name!r} versions={len(self.snapshot.keys)} active={active.version if active else None}>"

    def __reduce_ex__(self, protocol: SupportsIndex) -> NoReturn:
        raise TypeError("a keyring holds keys and cannot be pickled or copied; open one in the other process")

    def load(self, snapshot: KeyringSnapshot) -> None:
        """Use ``snapshot`` from the next call on. Ciphers of versions it no longer holds are dropped."""
        with self._lock:
            kept = snapshot.active is not None and snapshot.active == self.snapshot.active
            if not kept:
                self._note_bytes()
            self.snapshot = snapshot
            ids = {key_id.to_bytes(8, "big") for key_id in snapshot.keys}
            self.derived = {h: c for h, c in (self._aged | self.derived).items() if h[2:10] in ids}
            self._aged = {}
            if not kept:
                self._drop_sealer()

    def block(self) -> None:
        """Send every further call through the gate, without forgetting a key."""
        with self._lock:
            self._drop_sealer()
            self.derived = {}
            self._aged = {}

    def wipe(self) -> None:
        """Forget every key and overwrite it; calls in flight keep the cipher they already hold."""
        self.block()
        with self._lock:
            keys = self.snapshot.keys
            self.snapshot = KeyringSnapshot()
            for key in keys.values():
                key.wipe()

    def forget_older(self) -> None:
        """Forget and overwrite every version older than the active one; a newer one waits for its promotion."""
        active = self.snapshot.active_key
        if active is None:
            return
        old = self.snapshot.keys
        keys = {key_id: key for key_id, key in old.items() if key.version >= active.version}
        self.load(replace(self.snapshot, keys=keys))
        with self._lock:
            for key_id in old.keys() - keys.keys():
                old[key_id].wipe()

    def renew(self) -> None:
        """Forget salt, nonces and counts in a child of a fork, whatever the parent's other threads were doing."""
        self._lock = threading.Lock()
        self.redraw()
        self._reserved = {}
        self._bytes = {}
        self.byte_count.take()

    def redraw(self) -> None:
        """Forget salt and nonces: the machine's memory was duplicated, and another process has the same."""
        with self._lock:
            self._pool.clear()
            self._drop_sealer()

    def take_uses(self) -> dict[int, tuple[int, int]]:
        """Return messages and bytes each data key has sealed since the last call, and start again from zero."""
        with self._lock:
            self._note_bytes()
            uses, self._reserved = self._reserved, {}
            sizes, self._bytes = self._bytes, {}
            active = self.snapshot.active
            if active is not None and active in uses:
                unspent = len(self._pool)
                uses[active] -= unspent
                self._reserved[active] = unspent
            counts = {key_id: (uses.get(key_id, 0), sizes.get(key_id, 0)) for key_id in uses.keys() | sizes.keys()}
            return {key_id: count for key_id, count in counts.items() if any(count)}

    def needs_reencrypt(self, ciphertext: Bytes | str) -> bool:
        """Return whether ``ciphertext`` is under a version other than the active one, without decrypting.

        Raises:
            InvalidCiphertextError: not an envelope.
            KMSError: nothing is loaded, and the gate says why.
        """
        key_id = parse_header(as_binary(ciphertext)).key_id
        if self.snapshot.active is None:
            self._pass_gate(encrypting=False)
        return key_id != self.snapshot.active

    def find(self, header: Header) -> LoadedKey:
        """Return the version ``header`` names.

        Raises:
            DataKeyNotLoadedError: this process has not loaded it.
            DecryptionError: it belongs to another keyring, or serves another suite.
            KeyStateError: it is disabled or destroyed.
        """
        key = self.get(header.key_id)
        if header.suite != self.suite:
            raise DecryptionError(FAILED)
        return key

    def get(self, key_id: int) -> LoadedKey:
        """Return the version with the id ``key_id``, whatever suite it serves; errors as ``find``."""
        self._pass_gate(encrypting=False)
        snapshot = self.snapshot
        key = snapshot.keys.get(key_id)
        if key is not None:
            return key
        if self._owner_of(key_id) not in (None, self.name):
            raise DecryptionError(FAILED)
        if (state := snapshot.withheld.get(key_id)) is not None:
            raise KeyStateError(f"data key {key_id} of keyring {self.name!r} is {state}; {cure_of(state)}")
        raise DataKeyNotLoadedError(key_id)

    def new_header(self, weight: int, key_id: int | None = None) -> tuple[bytes, LoadedKey]:
        """Return a header under a fresh salt, and its key, the active one or ``key_id``; counts ``weight`` messages."""
        with self._lock:
            active = self._active_key()
            key = active if key_id is None else self.get(key_id)
            self._reserved[key.id] = self._reserved.get(key.id, 0) + weight
            return Header(self.suite, key.id, self._random(SALT_SIZE)).to_bytes(), key

    def get_active(self) -> LoadedKey:
        """Return the version that keys what is new, where keys are no cipher's; errors as ``seal``."""
        return self._active_key()

    def copy_active(self) -> bytes:
        """Return a copy of the active key, for keyrings whose keys are no cipher's; errors as ``seal``."""
        with self._lock:
            return bytes(self._active_key(encrypting=False).key)

    def copy_all(self) -> list[tuple[int, bytes]]:
        """Return version and copy of every usable key, oldest first; errors as ``copy_active``."""
        with self._lock:
            self._active_key(encrypting=False)
            return sorted((key.version, bytes(key.key)) for key in self.snapshot.keys.values())

    def seal(self, plaintext: Bytes, encoded_context: bytes = b"") -> bytes:
        """Encrypt with an encoded context, reserved keys allowed; where ``local_encrypt`` goes off its fast path.

        Raises:
            InvalidInputError: not bytes-like, or above 64 MiB.
            KMSError: the gate's refusal, or ``NoActiveKeyError``.
        """
        if isinstance(plaintext, str):
            raise InvalidInputError("local_encrypt takes bytes: call .encode() on text, or use encrypt_field")
        try:
            view = memoryview(plaintext)
        except (TypeError, ValueError):
            raise InvalidInputError(f"local_encrypt takes bytes, not {type(plaintext).__name__}") from None
        size = view.nbytes
        if size > MAX_PLAINTEXT:
            raise InvalidInputError("a one-shot message holds at most 64 MiB; use encrypt_stream for larger ones")
        content = bytes(view)
        header, encrypt, nonce = self._draw(1 + size // BLOCK)
        self.byte_count.add(size)
        return header + nonce + encrypt(nonce, content, header + encoded_context)

    def open(self, ciphertext: Bytes | str, encoded_context: bytes = b"") -> bytes:
        """Decrypt with an encoded context; where ``local_decrypt`` goes for a header not seen before, or text.

        Raises:
            DecryptionError: wrong key, wrong context, altered bytes, another keyring's or not an envelope.
            DataKeyNotLoadedError: the data key is not loaded in this process.
            KMSError: the gate's refusal; ``KeyStateError`` for a disabled version.
        """
        blob = as_binary(ciphertext)
        parsed = parse_header(blob)
        header = blob[:HEADER_SIZE]
        self.find(parsed)
        decrypt = self.derived.get(header)
        is_new = decrypt is None
        if decrypt is None and (decrypt := self._aged.get(header)) is None:
            decrypt = self._derive(parsed, header)
        try:
            plaintext = decrypt(blob[26:38], blob[38:], header + encoded_context)
        except (InvalidTag, ValueError):
            raise DecryptionError(FAILED) from None
        if is_new:
            with self._lock:
                # What was blocked or wiped meanwhile stays so.
                if parsed.key_id in self.snapshot.keys and self._gate(self, False) is None:
                    self._remember(header, decrypt)
        return plaintext

    def _derive(self, parsed: Header, header: bytes) -> Cipher:
        """Return the cipher that opens what begins with ``header``; a key being wiped is never derived from."""
        with self._lock:
            return cipher_of(self.find(parsed).key, header).decrypt

    def _draw(self, weight: int) -> tuple[bytes, Cipher, bytes]:
        """Return header, cipher and one nonce, with ``weight`` messages counted against the salt beforehand."""
        with self._lock:
            if weight == 1:
                header, encrypt, pop = self.sealer
                # Other threads pop without the lock: only the pop itself tells whether one was left.
                with contextlib.suppress(IndexError):
                    return header, encrypt, pop()
            key = self._active_key()
            self.byte_count.settle()
            if self._left < weight:
                self._draw_salt(key)
            header, encrypt, _ = self.sealer
            if weight > 1:
                self._count(key, weight)
                return header, encrypt, self._random(NONCE_SIZE)
            size = 1 if self.is_strict else min(self._pool_size, self._left)
            self._pool_size = min(self._pool_size * 2, POOL_MOST)
            self._count(key, size)
            # One unpack is five to ten times as fast as slicing nonce by nonce.
            nonce, *rest = struct.unpack(f"{NONCE_SIZE}s" * size, self._random(NONCE_SIZE * size))
            self._pool.extend(rest)
            return header, encrypt, nonce

    def _count(self, key: LoadedKey, messages: int) -> None:
        self._left -= messages
        self._reserved[key.id] = self._reserved.get(key.id, 0) + messages

    def _note_bytes(self) -> None:
        """Put what was sealed since down to the version that was active meanwhile."""
        if (size := self.byte_count.take()) and (active := self.snapshot.active) is not None:
            self._bytes[active] = self._bytes.get(active, 0) + size

    def _active_key(self, *, encrypting: bool = True) -> LoadedKey:
        self._pass_gate(encrypting=encrypting)
        if self.snapshot.active_key is None:
            raise NoActiveKeyError(f"keyring {self.name!r} has no active version; `keystead key rotate` makes one")
        return self.snapshot.active_key

    def _draw_salt(self, key: LoadedKey) -> None:
        if self.suite not in MESSAGE_SUITES:
            raise InvalidInputError(f"keyring {self.name!r} does not encrypt single messages; its suite says what for")
        header = Header(self.suite, key.id, self._random(SALT_SIZE)).to_bytes()
        cipher = cipher_of(key.key, header)
        self._pool = []
        # A long message may weigh more than a (lowered) limit: it gets a salt of its own.
        self._left = self._messages_per_salt
        self._remember(header, cipher.decrypt)
        self.sealer = (header, cipher.encrypt, self._pool.pop)

    def _drop_sealer(self) -> None:
        self._pool = []
        self._left = 0
        self._pool_size = POOL_START
        # No nonce can be popped, so every call leaves the fast path before this header could be used.
        self.sealer = (b"", no_cipher, self._pool.pop)

    def _remember(self, header: bytes, decrypt: Cipher) -> None:
        if len(self.derived if not self.is_strict else self._aged) >= DERIVED_LIMIT // 2:
            self._aged, self.derived = self.derived, {}
        # The hot path asks nobody about what it finds among the younger.
        (self._aged if self.is_strict else self.derived)[header] = decrypt

    def _pass_gate(self, *, encrypting: bool) -> None:
        refusal = self._gate(self, encrypting)
        if refusal is not None:
            raise refusal
