"""Which keyrings of a restored store get a new version when it is recovered, and which keep the one they have."""

from __future__ import annotations

from keystead.lifecycle.algorithms import LEGACY_ALGORITHM
from keystead.lifecycle.portable import StoreExport
from keystead.model import DataKeyState, KeyringPurpose, KeyringRecord, TransitType, is_of_transit
from keystead.ports import SeenState, TransitKeyRecord


class Succession:
    """What a restored store holds, beside what is known of it from outside its database.

    Attributes:
        transit: Transit keys by the keyrings that hold their versions.
        deleted: those that were deleted after the backup, of which no version is left that is known of.
    """

    def __init__(self, document: StoreExport, seen: SeenState) -> None:
        self.transit: dict[str, TransitKeyRecord] = {record.keyring: record for record in document.transit_keys}
        self._active_is_destroyed = {
            row.keyring for row in document.keys if row.state is DataKeyState.ACTIVE and row.id in seen.destroyed
        }
        kept = {row.keyring for row in document.keys if row.id not in seen.destroyed and row.wrapped_key is not None}
        kept |= {keyring for key_id, (keyring, _) in seen.keys.items() if key_id not in seen.destroyed}
        self.deleted = [self.transit[name] for name in self.transit.keys() & self._active_is_destroyed - kept]

    def follows(self, keyring: KeyringRecord) -> bool:
        """Whether another version takes over: not where what is kept elsewhere is compared with what the active makes.

        That is what was computed under an INDEX key; and of Transit keys HMACs and convergent ciphertexts, unless the
        active version is one that is destroyed again. An imported key is replaced only where its owner allowed it.
        """
        if keyring.purpose is KeyringPurpose.INDEX or keyring.algorithm == LEGACY_ALGORITHM:
            return False
        if not is_of_transit(keyring.name):
            return True
        record = self.transit.get(keyring.name)
        if record is None or record in self.deleted or (record.imported and not record.allow_rotation):
            return False
        is_compared = record.convergent or record.type is TransitType.HMAC
        return not is_compared or keyring.name in self._active_is_destroyed
