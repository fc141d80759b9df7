"""Signing with the keys of a keyring, which are Ed25519 seeds (RFC 8032)."""

from __future__ import annotations

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from keystead.crypto.keyring import Keyring
from keystead.crypto.snapshot import LoadedKey


class RingSigner:
    """Signs with the active version of a keyring of purpose ``sign``, algorithm Ed25519."""

    def __init__(self, ring: Keyring) -> None:
        self._ring = ring
        self._opened: tuple[int, Ed25519PrivateKey] | None = None

    def sign(self, message: bytes) -> bytes:
        """Return the signature of a message, 64 bytes. Errors as the keyring's gate."""
        active = self._ring.get_active()
        if self._opened is None or self._opened[0] != active.id:
            self._opened = active.id, _private(active)
        return self._opened[1].sign(message)

    def public_keys(self) -> list[str]:
        """Return the public halves of every version as PEM, the one that signs now first."""
        active = self._ring.get_active()
        others = [key for key in self._ring.snapshot.keys.values() if key.id != active.id]
        newest_first = [active, *sorted(others, key=lambda key: -key.version)]
        halves = [_private(key).public_key() for key in newest_first]
        return [half.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode("ascii") for half in halves]


def _private(key: LoadedKey) -> Ed25519PrivateKey:
    return Ed25519PrivateKey.from_private_bytes(bytes(key.key))
