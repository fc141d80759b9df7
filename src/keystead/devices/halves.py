"""Private halves at rest: envelopes under a WRAP key, each bound to its row. Spec: docs/spec/client-keys-v1.md, 2."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256

from keystead.crypto.context import encode_context
from keystead.crypto.keyring import Keyring
from keystead.devices.pairs import OpenKey, Pair
from keystead.model import utc_text
from keystead.ports import ClientKeyRecord, PairKind, ReadyPairRecord


@dataclass(frozen=True, slots=True)
class Half:
    """A private half, by the row that it belongs to: whoever alters what the row says of it closes it.

    Attributes:
        row: a key pair of a device, or one that no device has yet.
    """

    store_id: str
    row: ClientKeyRecord | ReadyPairRecord

    @property
    def kind(self) -> PairKind:
        """The kind of the pair."""
        return self.row.kind

    def context(self) -> bytes:
        """Return the encoded context that it is sealed under."""
        row = self.row
        pairs = {
            "keystead.purpose": "device",
            "keystead.store": self.store_id,
            "keystead.client_key": row.id,
            "keystead.algorithm": row.kind.value,
            "keystead.created": row.created_at,
            "keystead.public": sha256(row.public_key.encode()).hexdigest(),
        }
        if isinstance(row, ClientKeyRecord):
            pairs |= {
                "keystead.device": row.device_id,
                "keystead.tenant": row.tenant,
                "keystead.owner": row.owner,
                "keystead.expires": "" if row.expires_at is None else utc_text(row.expires_at),
            }
        return encode_context(pairs)


def seal_half(ring: Keyring, half: Half, pair: Pair) -> bytes:
    """Return the envelope of a pair's private half under the active WRAP key."""
    return ring.seal(pair.private, half.context())


def open_half(ring: Keyring, half: Half, sealed: bytes) -> OpenKey:
    """Return the private half, ready to open ciphertexts.

    Raises:
        DecryptionError: it is that of another row or store, or the row was altered.
        DataKeyNotLoadedError: its WRAP key is not loaded.
    """
    return OpenKey(half.kind, ring.open(sealed, half.context()))


def give_half(ring: Keyring, half: Half, sealed: bytes, to: Half) -> bytes:
    """Return a private half sealed anew, for another row or under the active WRAP key; errors as ``open_half``."""
    return ring.seal(ring.open(sealed, half.context()), to.context())
