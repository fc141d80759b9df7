"""What signs checkpoints: an Ed25519 key in a file, or a key that never leaves its KMS (checkpoint_signers_kms)."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Protocol

from keystead.ledger.tlog.key_file import ed25519_key
from keystead.ledger.tlog.note import NoteKey, NoteKeyType, NoteSignature

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey


class CheckpointSigner(Protocol):
    """Signs the text of checkpoints.

    Attributes:
        uri: what opens the KMS, where readers need it to check what was signed; None where a public key is enough.
    """

    uri: str | None

    @property
    def keys(self) -> tuple[NoteKey, ...]:
        """The keys that readers trust, the one that signs now first."""

    @property
    def is_remote(self) -> bool:
        """Whether signing takes a call to somewhere else, for which no record should wait."""

    def sign(self, text: str) -> NoteSignature:
        """Return the signature of ``text``; blocks."""

    def close(self) -> None:
        """Give back what it holds; idempotent."""


def name_for(stream: str) -> str:
    """Return the name of the key that signs a stream's checkpoints: its own, but for signs that no key's name has."""
    return "".join(f"%{ord(sign):02X}" if sign.isspace() or sign in "+%" else sign for sign in stream)


class LocalSigner:
    """An Ed25519 key in this process.

    Whoever takes the host takes the key, and may sign what follows; what went before is held by the tags and by whoever
    has kept a checkpoint of it.
    """

    is_remote = False
    uri: str | None = None

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
        return cls(name, ed25519_key(path))

    @property
    def keys(self) -> tuple[NoteKey, ...]:
        """The key's public half."""
        return (self.key,)

    def close(self) -> None:
        """Do nothing."""

    def sign(self, text: str) -> NoteSignature:
        """Return the signature of ``text``."""
        return NoteSignature(self.key.name, self.key.key_id, self._private_key.sign(text.encode()))
