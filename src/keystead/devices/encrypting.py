"""Encrypting as a client does, for development and for tests of clients."""

from __future__ import annotations

from keystead.devices.pairs import ALGORITHMS, Algorithm, Purpose, binding, encrypt_to, public_der
from keystead.errors import EncryptionError
from keystead.ports import ClientKeyRecord

FAILED = "Failed to encrypt data"


def encrypt_data(
    key: ClientKeyRecord, plaintext: bytes, algorithm: Algorithm | None = None, purpose: Purpose = Purpose.DATA
) -> bytes:
    """Return what a client would send.

    Raises:
        EncryptionError: longer than the key takes, or an algorithm that is not one of its kind.
    """
    info = binding(key.id, key.device_id, purpose)
    try:
        return encrypt_to(public_der(key.public_key), plaintext, algorithm or ALGORITHMS[key.kind][0], info)
    except ValueError:
        pass
    raise EncryptionError(FAILED)
