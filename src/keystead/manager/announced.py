"""A keyring whose readers are told which version is written: what is encrypted is under the version told last.

For whoever asks "which key do you write under?" first and takes what is encrypted under any other for a fault.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from keystead.crypto.chosen_version import seal_under
from keystead.crypto.envelope import parse_header
from keystead.crypto.keyring import Keyring
from keystead.errors import (
    DataKeyNotLoadedError,
    KeyStateError,
    NoActiveKeyError,
    StoreUnavailableError,
)
from keystead.manager.session import Session
from keystead.runtime.repeating import look_every

FOLLOW_S: Final = 1.0
"""How often it is looked whether every node has a version that this process has as the active one."""
ASKED_WITHIN_S: Final = 300.0
"""How long a version that was replaced is written under after somebody asked which one it is."""


@dataclass(frozen=True, slots=True)
class KeyVersion:
    """One version of a keyring: never another data key, and never another version of the same data key."""

    keyring: str
    number: int
    data_key_id: int


class AnnouncedKeyring:
    """Tells which version it writes under, and writes under no other.

    The version told moves on when it is asked for, to one that every live node of the store has loaded; see
    ``Rotation.may_replace``. All but ``open`` and ``follow`` is done in memory.
    """

    def __init__(self, session: Session, ring: Keyring) -> None:
        self._session = session
        self._s = session.surroundings
        self._ring = ring
        self._told: int | None = None
        self._everywhere: int | None = None
        self._asked = self._s.clock.monotonic()

    @property
    def told(self) -> KeyVersion | None:
        """The version told last; None before, and where it may not be used any more."""
        return None if self._told is None else self._find(self._told)

    def tell(self) -> KeyVersion:
        """Return the version that ``seal`` writes under from now on, which ``told`` is as well.

        Raises:
            KMSError: why nothing can be encrypted now, or this process cannot know whether it may.
        """
        self._asked = self._s.clock.monotonic()
        self._require_usable()
        if not self._session.has_current_view:
            # The others wait for this process no more: what they have changed since is not known here.
            raise StoreUnavailableError("the store has not been read for too long to know what others have changed")
        active = self._ring.snapshot.active
        if self._told is None or self._told not in self._ring.snapshot.keys or self._everywhere == active:
            self._told = active
        return self._version(self._told)

    def seal(self, plaintext: bytes, encoded_context: bytes) -> tuple[KeyVersion, bytes]:
        """Return the version told last, and an envelope under it.

        Raises:
            KMSError: why nothing can be encrypted now.
            KeyStateError: the version was replaced and nobody has asked for another, or it may not be used any more.
        """
        self._require_usable()
        active = self._ring.snapshot.active
        told = self._told = self._told or active
        waited_s = self._s.clock.monotonic() - self._asked
        if told is None or told not in self._ring.snapshot.keys or (told != active and waited_s > ASKED_WITHIN_S):
            raise KeyStateError(
                f"keyring {self._ring.name!r} has another active version than was told last: ask for the status, which "
                "tells it, and encrypt again"
            )
        blob = seal_under(self._ring, told, plaintext, encoded_context, random=self._s.random)
        return self._version(told), blob

    async def open(self, ciphertext: bytes, encoded_context: bytes) -> tuple[KeyVersion, bytes]:
        """Return the version of an envelope and its plaintext; its key is fetched from the store if it is not loaded.

        Raises:
            DecryptionError: another keyring's, another context, altered bytes, or no envelope.
            DataKeyNotLoadedError: the store has no such key.
            KMSError: the gate's refusal; the version may not be used; the store or the KMS is away.
        """
        key_id = parse_header(ciphertext).key_id
        try:
            plaintext = self._ring.open(ciphertext, encoded_context)
        except DataKeyNotLoadedError:
            await self._session.lifecycle.lookup.fetch(self._ring, key_id)
            plaintext = self._ring.open(ciphertext, encoded_context)
        return self._version(key_id), plaintext

    async def follow(self) -> None:
        """Look again and again whether the active version may be told, until the task is cancelled."""
        await look_every(FOLLOW_S, self.look, sleep=self._s.clock.sleep, what="whether every node has a new version")

    async def look(self) -> None:
        """Find out whether the active version may be told, if that is another than the one told last.

        Raises:
            StorageOperationError: the store cannot be read.
        """
        active, told = self._ring.snapshot.active, self._told
        if active is None or told is None or active in (told, self._everywhere):
            return
        async with self._s.store.reading() as work:
            rows = {row.id: row for row in await work.find_keys({active, told})}
            row = rows.get(active)
            if row is not None and await self._session.lifecycle.rotation.may_replace(work, row, rows.get(told)):
                self._everywhere = active

    def _require_usable(self) -> None:
        if (refusal := self._session.gate(self._ring, True)) is not None:
            raise refusal
        if self._ring.snapshot.active_key is None:
            raise NoActiveKeyError(
                f"keyring {self._ring.name!r} has no active version; `keystead key rotate` makes one"
            )

    def _find(self, key_id: int) -> KeyVersion | None:
        key = self._ring.snapshot.keys.get(key_id)
        return None if key is None else KeyVersion(self._ring.name, key.version, key.id)

    def _version(self, key_id: int | None) -> KeyVersion:
        found = None if key_id is None else self._find(key_id)
        if found is None:
            raise KeyStateError(f"a version of keyring {self._ring.name!r} went out of use just now; try again")
        return found
