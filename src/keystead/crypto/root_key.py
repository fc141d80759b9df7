"""Root keys: a key for ``LocalKMSProvider`` from a seed and a salt, or from a passphrase.

``RootKeyGenerator`` is the Go KMS's, PBKDF2-HMAC-SHA256; ``argon2id_root_key`` is what to use for a
passphrase that a person remembers.
"""

from __future__ import annotations

import functools
import time
import warnings
from typing import Final

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.pbkdf2 import PBKDF2HMAC

from keystead.crypto.argon2id import argon2id
from keystead.errors import (
    ConfigurationError,
    InvalidIterationsError,
    InvalidKeyLengthError,
    InvalidSaltError,
    InvalidSeedError,
)
from keystead.model import SecretBytes

KNOWN_DEFAULT_SEED: Final = b"default-seed-value"
KNOWN_DEFAULT_SALT: Final = b"default-salt-value"
DEFAULT_ITERATIONS: Final = 600_000
MIN_ITERATIONS: Final = 10_000
MIN_SIZE: Final = 16
KEY_STRENGTHS: Final = {16: "AES-128", 24: "AES-192", 32: "AES-256"}
ARGON2_MIN_MEMORY_KIB: Final = 19_456
ARGON2_MIN_ITERATIONS: Final = 2
ARGON2_MAX_LANES: Final = 64


class RootKeyGenerator:
    """Derives the root key from ``seed`` and ``salt``. Both are the user's to keep; there is no default for either.

    Args:
        seed: secret input of at least 16 bytes; text is taken as UTF-8.
        salt: random bytes of this installation, at least 16; text is taken as UTF-8.
        iterations: PBKDF2 rounds, at least 10 000.
        key_length: 16, 24 or 32 bytes.
        allow_known_defaults: accept, with a warning, the reference implementation's published seed and salt: for
            reading data that was written under them.
        production: refuse what otherwise only warns.
    """

    __slots__ = ("_allow_known_defaults", "_production", "_salt", "_seed", "iterations", "key_length")

    def __init__(
        self,
        seed: str | bytes,
        salt: str | bytes,
        iterations: int = DEFAULT_ITERATIONS,
        key_length: int = 32,
        *,
        allow_known_defaults: bool = False,
        production: bool = False,
    ) -> None:
        self._seed = _secret(seed)
        self._salt = _secret(salt)
        self.iterations = iterations
        self.key_length = key_length
        self._allow_known_defaults = allow_known_defaults
        self._production = production

    def __repr__(self) -> str:
        return f"RootKeyGenerator(iterations={self.iterations!r}, key_length={self.key_length!r})"

    def generate_root_key(self) -> SecretBytes:
        """Return the root key. It takes ``estimate_generation_time()`` and blocks: run it off an event loop.

        Raises:
            ConfigurationError: as ``validate_config``.
        """
        self.validate_config()
        kdf = PBKDF2HMAC(SHA256(), self.key_length, self._salt, self.iterations)
        return SecretBytes(kdf.derive(self._seed))

    def validate_config(self) -> None:
        """Check seed, salt, iterations and key length, in this order.

        Warns (``UserWarning``) of a seed or salt under 16 bytes, and of the published ones where they are allowed.

        Raises:
            InvalidSeedError: empty or not str or bytes; the published seed; under 16 bytes in production.
            InvalidSaltError: the same of the salt.
            InvalidIterationsError: fewer than 10 000.
            InvalidKeyLengthError: not 16, 24 or 32.
        """
        self._check("seed", self._seed, KNOWN_DEFAULT_SEED, InvalidSeedError)
        self._check("salt", self._salt, KNOWN_DEFAULT_SALT, InvalidSaltError)
        if not isinstance(self.iterations, int) or self.iterations < MIN_ITERATIONS:
            raise InvalidIterationsError(f"iterations must be an integer of at least {MIN_ITERATIONS}")
        if self.key_length not in KEY_STRENGTHS:
            raise InvalidKeyLengthError("key_length must be 16, 24 or 32")

    def get_key_strength(self) -> str:
        """Return "AES-128", "AES-192" or "AES-256" by key length, "Unknown" for any other."""
        return KEY_STRENGTHS.get(self.key_length, "Unknown")

    def estimate_generation_time(self) -> int:
        """Return how many milliseconds ``generate_root_key`` takes on this machine, at least 1 where it does anything.

        The first call of a process times a short derivation (a few milliseconds).
        """
        if self.iterations <= 0:
            return 0
        return max(1, round(self.iterations * _seconds_per_iteration() * 1000))

    def _check(self, what: str, value: SecretBytes, known: bytes, error: type[ConfigurationError]) -> None:
        if not value:
            raise error(f"{what} is missing: give at least {MIN_SIZE} bytes of str or bytes")
        if value == known:
            if not self._allow_known_defaults:
                raise error(f"{what} is the reference implementation's published default; draw a random one instead")
            self._warn(f"{what} is a published default: whoever reads the ciphertext can decrypt it; rotate at once")
        elif len(value) < MIN_SIZE:
            if self._production:
                raise error(f"{what} is under {MIN_SIZE} bytes, which is refused in production")
            self._warn(f"{what} is under {MIN_SIZE} bytes, which is refused in production")

    def _warn(self, message: str) -> None:
        warnings.warn(message, UserWarning, stacklevel=4)


def argon2id_root_key(
    passphrase: str | bytes,
    salt: bytes,
    *,
    memory_kib: int = 65_536,
    iterations: int = 3,
    lanes: int = 1,
    length: int = 32,
) -> SecretBytes:
    """Return a root key from a passphrase, by Argon2id (RFC 9106). It blocks: run it off an event loop.

    Args:
        passphrase: any text or bytes; text is taken as UTF-8.
        salt: at least 16 random bytes, kept beside what the key protects.
        memory_kib: at least 19 456.
        iterations: at least 2.
        lanes: 1 to 64.
        length: 16, 24 or 32 bytes.

    Raises:
        InvalidSeedError: an empty passphrase.
        InvalidSaltError: a salt under 16 bytes.
        InvalidIterationsError: too few iterations.
        InvalidKeyLengthError: another length.
        ConfigurationError: too little memory, another number of lanes, or an OpenSSL without Argon2id.
    """
    secret, salt_bytes = _secret(passphrase), _secret(salt)
    if not secret:
        raise InvalidSeedError("the passphrase is empty, or not str or bytes")
    if len(salt_bytes) < MIN_SIZE:
        raise InvalidSaltError(f"the salt is under {MIN_SIZE} bytes; draw os.urandom({MIN_SIZE}) and keep it")
    if iterations < ARGON2_MIN_ITERATIONS:
        raise InvalidIterationsError(f"Argon2id needs at least {ARGON2_MIN_ITERATIONS} iterations")
    if length not in KEY_STRENGTHS:
        raise InvalidKeyLengthError("length must be 16, 24 or 32")
    if memory_kib < ARGON2_MIN_MEMORY_KIB:
        raise ConfigurationError(f"Argon2id needs at least {ARGON2_MIN_MEMORY_KIB} KiB of memory")
    if not 1 <= lanes <= ARGON2_MAX_LANES:
        raise ConfigurationError(f"Argon2id takes 1 to {ARGON2_MAX_LANES} lanes")
    made = argon2id(secret, salt_bytes, length=length, memory_kib=memory_kib, iterations=iterations, lanes=lanes)
    return SecretBytes(made)


def _secret(value: object) -> SecretBytes:
    """Return the bytes of a seed or salt; nothing for what cannot be one, which validation then refuses."""
    if isinstance(value, str):
        try:
            return SecretBytes(value.encode())
        except UnicodeEncodeError:
            return SecretBytes()
    return SecretBytes(value) if isinstance(value, bytes | bytearray | memoryview) else SecretBytes()


@functools.cache
def _seconds_per_iteration() -> float:
    times = []
    for _ in range(3):
        start = time.perf_counter()
        PBKDF2HMAC(SHA256(), 32, bytes(16), MIN_ITERATIONS).derive(bytes(16))
        times.append(time.perf_counter() - start)
    return min(times) / MIN_ITERATIONS
