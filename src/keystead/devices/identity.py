"""The service's own key, by which it signs the public keys that it gives. Spec: docs/spec/client-keys-v1.md, 5."""

from __future__ import annotations

import base64
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from keystead.crypto.keyring import Keyring
from keystead.crypto.snapshot import LoadedKey
from keystead.devices.pairs import Algorithm, public_der
from keystead.devices.statements import key_statement
from keystead.ports import ClientKeyRecord

IDENTITY_KEYRING: Final = "keystead.identity"


class Identity:
    """Signs public keys.

    Args:
        ring: the keyring ``keystead.identity``, whose keys are Ed25519 seeds.
    """

    def __init__(self, ring: Keyring) -> None:
        self._ring = ring
        self._opened: tuple[int, Ed25519PrivateKey] | None = None

    def sign(self, key: ClientKeyRecord, algorithm: Algorithm) -> str:
        """Return the signature of a key pair's public half, as it travels."""
        statement = key_statement(key.id, key.device_id, public_der(key.public_key), key.expires_at, algorithm)
        active = self._ring.get_active()
        if self._opened is None or self._opened[0] != active.id:
            self._opened = active.id, _private(active)
        return base64.b64encode(self._opened[1].sign(statement)).decode("ascii")

    def public_keys(self) -> list[str]:
        """Return the public halves of every version as PEM, the one that signs now first."""
        active = self._ring.get_active()
        others = [key for key in self._ring.snapshot.keys.values() if key.id != active.id]
        newest_first = [active, *sorted(others, key=lambda key: -key.version)]
        halves = [_private(key).public_key() for key in newest_first]
        return [half.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode("ascii") for half in halves]


def _private(key: LoadedKey) -> Ed25519PrivateKey:
    return Ed25519PrivateKey.from_private_bytes(bytes(key.key))
