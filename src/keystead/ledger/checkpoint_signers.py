"""What signs checkpoints: an Ed25519 key in a file, or a key that never leaves its KMS."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Protocol

from keystead.errors import ConfigurationError
from keystead.ledger.note import NoteKey, NoteKeyType, NoteSignature

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey


class CheckpointSigner(Protocol):
    """Signs the text of checkpoints."""

    @property
    def key(self) -> NoteKey:
        """The public half, as readers trust it."""

    @property
    def is_remote(self) -> bool:
        """Whether signing takes a call to somewhere else, for which no record should wait."""

    def sign(self, text: str) -> NoteSignature:
        """Return the signature of ``text``; blocks."""


class LocalSigner:
    """An Ed25519 key in this process.

    Whoever takes the host takes the key, and may sign what follows; what went before is held by the tags and by whoever
    has kept a checkpoint of it.
    """

    is_remote = False

    def __init__(self, name: str, private_key: Ed25519PrivateKey) -> None:
        self._private_key = private_key
        self.key = NoteKey.of(name, NoteKeyType.ED25519, private_key.public_key().public_bytes_raw())

    def __repr__(self) -> str:
        return f"LocalSigner({self.key.name!r}, key hidden)"

    @classmethod
    def from_file(cls, path: str | os.PathLike[str], name: str) -> LocalSigner:
        """Return the signer whose key is in a file (PKCS #8 in PEM, mode 0600), which is made if there is none.

        Raises:
            ConfigurationError: the file is open to others, cannot be used, or holds no Ed25519 key.
        """
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
        from cryptography.hazmat.primitives.serialization import load_pem_private_key

        try:
            content = _read(os.fspath(path)) or _make(os.fspath(path))
        except OSError as exc:
            raise ConfigurationError(f"the signing key {path} cannot be used: {exc.strerror}") from None
        private_key: object
        try:
            private_key = load_pem_private_key(content, None)
        except (ValueError, TypeError):
            private_key = None
        if not isinstance(private_key, Ed25519PrivateKey):
            raise ConfigurationError(f"{path} holds no Ed25519 key in PEM; restore it from its backup")
        return cls(name, private_key)

    def sign(self, text: str) -> NoteSignature:
        """Return the signature of ``text``."""
        return NoteSignature(self.key.name, self.key.key_id, self._private_key.sign(text.encode()))


def _read(path: str) -> bytes | None:
    """Return the content of a key file, None where there is none."""
    try:
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    with os.fdopen(file, "rb") as opened:
        mode = os.fstat(opened.fileno()).st_mode & 0o777
        if mode & 0o077:
            raise ConfigurationError(
                f"the signing key {path} is open to others (mode {mode:04o}); run: chmod 600 {path}"
            )
        return opened.read(1 << 16)


def _make(path: str) -> bytes:
    """Make a key file, unless somebody is faster, and return its content."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    content = Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    staged = f"{path}.{os.getpid()}.new"
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
    finally:
        os.unlink(staged)
    return content
