"""Private halves at rest: envelopes under a WRAP key, each bound to its row. Spec: docs/spec/client-keys-v1.md, 2."""

from __future__ import annotations

from dataclasses import dataclass

from keystead.crypto.context import encode_context
from keystead.crypto.keyring import Keyring
from keystead.devices.pairs import OpenKey, Pair
from keystead.ports import PairKind


@dataclass(frozen=True, slots=True)
class Half:
    """Which private half it is.

    Attributes:
        device_id: None while the pair is not given to a device yet.
        created: when the row was made, as it stands there.
    """

    store_id: str
    key_id: str
    device_id: str | None
    kind: PairKind
    created: str

    def context(self) -> bytes:
        """Return the encoded context that it is sealed under."""
        pairs = {
            "keystead.purpose": "device",
            "keystead.store": self.store_id,
            "keystead.client_key": self.key_id,
            "keystead.algorithm": self.kind.value,
            "keystead.created": self.created,
        }
        return encode_context(pairs if self.device_id is None else {**pairs, "keystead.device": self.device_id})


def seal_half(ring: Keyring, half: Half, pair: Pair) -> bytes:
    """Return the envelope of a pair's private half under the active WRAP key."""
    return ring.seal(pair.private, half.context())


def open_half(ring: Keyring, half: Half, sealed: bytes) -> OpenKey:
    """Return the private half, ready to open ciphertexts.

    Raises:
        DecryptionError: it is that of another row, device or store, or was altered.
        DataKeyNotLoadedError: its WRAP key is not loaded.
    """
    return OpenKey(half.kind, ring.open(sealed, half.context()))


def give_half(ring: Keyring, half: Half, sealed: bytes, to: Half) -> bytes:
    """Return a private half sealed anew, for another row or under the active WRAP key; errors as ``open_half``."""
    return ring.seal(ring.open(sealed, half.context()), to.context())
