"""The service's own key, by which it signs the public keys that it gives. Spec: docs/spec/client-keys-v1.md, 5."""

from __future__ import annotations

import base64
from typing import Final

from keystead.crypto.keyring import Keyring
from keystead.crypto.ring_signer import RingSigner
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
        self._signer = RingSigner(ring)

    def sign(self, key: ClientKeyRecord, algorithm: Algorithm) -> str:
        """Return the signature of a key pair's public half, as it travels."""
        statement = key_statement(key.id, key.device_id, public_der(key.public_key), key.expires_at, algorithm)
        return base64.b64encode(self._signer.sign(statement)).decode("ascii")

    def public_keys(self) -> list[str]:
        """Return the public halves of every version as PEM, the one that signs now first."""
        return self._signer.public_keys()
