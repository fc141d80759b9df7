"""A Transit key as a process holds it: its row, its versions, and what was made of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from keystead.crypto.keyring import Keyring
from keystead.crypto.private_keys import KeyPair, read_pair
from keystead.crypto.snapshot import KeyringSnapshot, LoadedKey
from keystead.errors import InvalidInputError
from keystead.ports import Random, TransitKeyRecord

TOO_OLD: Final = "ciphertext or signature version is disallowed by policy (too old)"
TOO_NEW: Final = "version is too new"
NOT_YET: Final = "is higher than the latest key version"
_NO_VERSION: Final = "no such key version"
SOFT_DELETED: Final = "refusing to use soft-deleted key"


@dataclass(slots=True)
class Made:
    """What was made of a key's versions; it stays while the key is looked at again."""

    random: Random
    pairs: dict[int, KeyPair] = field(default_factory=dict, repr=False)

    def keep(self, key_ids: Mapping[int, object]) -> None:
        """Forget what was made of versions that are gone."""
        for key_id in self.pairs.keys() - key_ids.keys():
            del self.pairs[key_id]


class OpenKey:
    """One look at a key: nothing of it changes.

    Attributes:
        latest: the version that is used where none is named; 0 where the keyring has no active one.
    """

    __slots__ = ("latest", "made", "record", "ring", "snapshot", "versions")

    def __init__(self, record: TransitKeyRecord, ring: Keyring, made: Made) -> None:
        self.record = record
        self.ring = ring
        self.snapshot: KeyringSnapshot = ring.snapshot
        self.versions = {key.version: key for key in self.snapshot.keys.values()}
        active = self.snapshot.active_key
        self.latest = 0 if active is None else active.version
        self.made = made
        made.keep(self.snapshot.keys)

    @property
    def is_current(self) -> bool:
        """Whether the keyring still holds the versions that were looked at."""
        return self.ring.snapshot is self.snapshot

    def require_usable(self) -> None:
        """Raise ``InvalidInputError`` for a soft-deleted key."""
        if self.record.soft_deleted:
            raise InvalidInputError(SOFT_DELETED)

    def to_protect(self, version: int, action: str = "encryption") -> LoadedKey:
        """Return the version that encrypts, signs or computes: the named one, 0 for the latest.

        Raises:
            InvalidInputError: it is negative, too new, or before ``min_encryption`` or ``min_decryption``.
        """
        if version == 0:
            version = self.latest
        elif version < 0:
            raise InvalidInputError(f"requested version for {action} is negative")
        elif version > self.latest:
            raise TooNewError(f"requested version for {action} {NOT_YET}")
        elif version < self.record.min_encryption or version < self.record.min_available:
            raise InvalidInputError(f"requested version for {action} is less than the minimum encryption key version")
        elif version < self.record.min_decryption:
            raise InvalidInputError(_NO_VERSION)
        return self._found(version)

    def to_open(self, version: int, what: str = "ciphertext") -> LoadedKey:
        """Return the version that something names which is decrypted or verified.

        Raises:
            InvalidInputError: it is too new, or before ``min_decryption``.
        """
        if version > self.latest and version not in self.versions:
            raise TooNewError(f"invalid {what}: {TOO_NEW}")
        if version < self.record.min_decryption:
            raise InvalidInputError(TOO_OLD)
        return self._found(version)

    def pair(self, version: LoadedKey) -> KeyPair:
        """Return the key pair of a version; errors as ``Keyring.get`` and ``read_pair``."""
        # Asked each time: what was read before must not be used any longer than the keyring may be.
        loaded = self.ring.get(version.id)
        pair = self.made.pairs.get(version.id)
        if pair is None:
            pair = self.made.pairs[version.id] = read_pair(bytes(loaded.key))
        return pair

    def _found(self, version: int) -> LoadedKey:
        key = self.versions.get(version)
        if key is None:
            raise InvalidInputError(_NO_VERSION)
        return key


class TooNewError(InvalidInputError):
    """A version is named that this process does not know, and another may have made."""
