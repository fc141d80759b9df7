"""Where keys are that verify logs of fapilog-tamper. A log names a key id, and never a path or a variable."""

from __future__ import annotations

import hmac
import os
import re
import stat
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Final, Protocol

from keystead.errors import ConfigurationError
from keystead.integrations.fapilog.v1.records import ED25519, HMAC, SIGNATURE_SIZES
from keystead.ledger.signers.key_text import keys_in

DEFAULT_VARIABLE: Final = "FAPILOG_TAMPER_KEY"
KEY_SIZE: Final = 32
MAX_FILE_BYTES: Final = 1 << 16
_KEY_ID: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:@-]{0,199}\Z")
_IN_VARIABLE: Final = re.compile(r"[A-Za-z0-9_]{1,200}\Z")
_KNOWN_AT_MOST: Final = 256


class KeyStore(Protocol):
    """Gives keys: 32 bytes for HMAC-SHA256, the 32-byte public key for Ed25519."""

    def get_key(self, key_id: str) -> bytes | None:
        """Return the key of an id, None where there is none."""


class EnvKeyStore:
    """Keys in the environment.

    fapilog-tamper read the variable that a record named, whichever it was. Here one variable, by default the one that
    seals, verifies the records of every key id, unless a prefix, or ids, are given.

    Args:
        prefix: the key of an id is in the variable of this name with the id behind it.
        variable: holds the keys of all ids, the newest first.
        key_ids: ids that are themselves names of variables.
    """

    def __init__(
        self, *, prefix: str | None = None, variable: str = DEFAULT_VARIABLE, key_ids: Collection[str] = ()
    ) -> None:
        self._prefix = prefix
        self._variable = variable
        self._key_ids = frozenset(key_ids)

    def get_key(self, key_id: str) -> bytes | None:
        """Return the newest key of an id; errors as ``get_keys``."""
        return next(iter(self.get_keys(key_id)), None)

    def get_keys(self, key_id: str) -> Sequence[bytes]:
        """Return the keys of an id, the newest first.

        Raises:
            ConfigurationError: the variable that was named in the constructor is set, and holds no key.
        """
        if self._prefix:
            value = os.environ.get(f"{self._prefix}{key_id}") if _IN_VARIABLE.match(key_id) else None
            return () if value is None else keys_in(os.fsencode(value)) or ()
        name = key_id if key_id in self._key_ids else self._variable
        return _required(name, os.environ.get(name))


class FileKeyStore:
    """Keys in a file, for every id; or in a folder, ``<key id>.key`` for each.

    Raises:
        ConfigurationError: at reading: a file that was named in the constructor is there, and holds no key.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._path = Path(path)

    def get_key(self, key_id: str) -> bytes | None:
        """Return the newest key of an id."""
        return next(iter(self.get_keys(key_id)), None)

    def get_keys(self, key_id: str) -> Sequence[bytes]:
        """Return the keys of an id, the newest first."""
        if not self._path.is_dir():
            content = _content(self._path)
            found = None if content is None else keys_in(content)
            if content is not None and found is None:
                raise ConfigurationError(f"{self._path} holds no key: 32 bytes, or base64 or hex of them")
            return found or ()
        content = _content(self._path / f"{key_id}.key") if _KEY_ID.match(key_id) else None
        return () if content is None else keys_in(content) or ()


class KnownKeys:
    """The keys of a store, each asked for once."""

    def __init__(self, store: KeyStore) -> None:
        self._store = store
        self._known: dict[str, Sequence[bytes]] = {}

    def __call__(self, key_id: str) -> Sequence[bytes]:
        """Return the keys of an id, the newest first; none where there are none."""
        found = self._known.get(key_id)
        if found is None:
            if len(self._known) >= _KNOWN_AT_MOST:
                self._known.clear()
            found = self._known[key_id] = self._ask(key_id)
        return found

    def _ask(self, key_id: str) -> Sequence[bytes]:
        get_keys = getattr(self._store, "get_keys", None)
        found = tuple(get_keys(key_id) if callable(get_keys) else (self._store.get_key(key_id),))
        keys = tuple(key for key in found if key is not None)
        if not all(isinstance(key, bytes | bytearray) and len(key) == KEY_SIZE for key in keys):
            raise ConfigurationError(f"the key store {type(self._store).__name__} gave a key that is no 32 bytes")
        return keys


def has_sealed(keys: Sequence[bytes], algorithm: str, payload: bytes, mac: bytes) -> bool:
    """Whether one of the keys made a MAC, or a signature, of ``payload``."""
    if len(mac) != SIGNATURE_SIZES.get(algorithm):
        return False
    if algorithm == HMAC:
        return any(hmac.compare_digest(hmac.digest(key, payload, "sha256"), mac) for key in keys)
    return algorithm == ED25519 and any(_has_signed(key, payload, mac) for key in keys)


def _has_signed(public_key: bytes, payload: bytes, signature: bytes) -> bool:
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    try:
        Ed25519PublicKey.from_public_bytes(public_key).verify(signature, payload)
    except (InvalidSignature, ValueError):
        return False
    return True


def _required(variable: str, value: str | None) -> Sequence[bytes]:
    if value is None:
        return ()
    found = keys_in(os.fsencode(value))
    if found is None:
        raise ConfigurationError(
            f"the environment variable {variable} holds no key: put 32 random bytes as base64 or hex in it"
        )
    return found


def _content(path: Path) -> bytes | None:
    """Return what a key file holds; None where there is none that can be read."""
    try:
        # A pipe in its place must not hold anybody up.
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        return None
    try:
        return os.read(file, MAX_FILE_BYTES + 1) if stat.S_ISREG(os.fstat(file).st_mode) else None
    finally:
        os.close(file)
