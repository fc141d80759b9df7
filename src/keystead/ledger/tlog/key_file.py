"""Signing keys in files: PKCS #8 in PEM, readable by their owner only, made at first use and never replaced."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from keystead.errors import ConfigurationError
from keystead.runtime.files import sync_folder

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA44PrivateKey

MAX_BYTES = 1 << 16


def ed25519_key(path: str | os.PathLike[str], *, makes: bool = True) -> Ed25519PrivateKey:
    """Return the Ed25519 key in a file, which is made if there is none.

    Args:
        makes: False: a file that is not there is an error.

    Raises:
        ConfigurationError: the file is open to others, cannot be used, or holds no such key.
    """
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    made = Ed25519PrivateKey.generate if makes else None
    found = _load(os.fspath(path), made)
    if not isinstance(found, Ed25519PrivateKey):
        raise ConfigurationError(f"{path} holds no Ed25519 key in PEM; restore it from its backup")
    return found


def ml_dsa_44_key(path: str | os.PathLike[str]) -> MLDSA44PrivateKey:
    """Return the ML-DSA-44 key in a file, which is made if there is none; errors as ``ed25519_key``."""
    from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA44PrivateKey

    found = _load(os.fspath(path), MLDSA44PrivateKey.generate)
    if not isinstance(found, MLDSA44PrivateKey):
        raise ConfigurationError(f"{path} holds no ML-DSA-44 key in PEM; restore it from its backup")
    return found


def _load(path: str, make: Callable[[], Any] | None) -> object:
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        content = _read(path)
        if content is None and make is not None:
            content = _make(path, make)
    except OSError as exc:
        raise ConfigurationError(f"the signing key {path} cannot be used: {exc.strerror}") from None
    if content is None:
        raise ConfigurationError(f"there is no signing key at {path}")
    try:
        return load_pem_private_key(content, None)
    except (ValueError, TypeError):
        return None


def _read(path: str) -> bytes | None:
    """Return the content of a key file, None where there is none."""
    try:
        # A pipe in its place must not hold anybody up.
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        return None
    with os.fdopen(file, "rb") as opened:
        mode = os.fstat(opened.fileno()).st_mode & 0o777
        if mode & 0o077:
            raise ConfigurationError(
                f"the signing key {path} is open to others (mode {mode:04o}); run: chmod 600 {path}"
            )
        return opened.read(MAX_BYTES)


def _make(path: str, make: Callable[[], Any]) -> bytes:
    """Make a key file, unless somebody is faster, and return its content; on disk when this returns."""
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    content: bytes = make().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    # Of a name that no crash has left: a process of a container may have the same number each time.
    staged = f"{path}.{secrets.token_hex(8)}.new"
    file = os.open(staged, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(file, "wb") as opened:
            opened.write(content)
            opened.flush()
            os.fsync(opened.fileno())
        try:
            os.link(staged, path)
        except FileExistsError:
            return _read(path) or content
        sync_folder(Path(path).parent)
    finally:
        os.unlink(staged)
    return content
