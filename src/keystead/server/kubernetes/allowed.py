"""What the administrators of the plugin's key allow, as it was read last."""

from __future__ import annotations

from keystead.errors import KeyStateError
from keystead.ports import Clock
from keystead.runtime.repeating import look_every
from keystead.transit.opened import OpenKey
from keystead.transit.room import FRESH_S, Transit


class Allowed:
    """Says whether the key is in use, and from which version on it decrypts.

    Asking does no I/O: a database that is away holds nothing up, and what it said last goes on holding.
    """

    def __init__(self, room: Transit, key: OpenKey, clock: Clock) -> None:
        self._room = room
        self._record = key.record
        self._clock = clock

    def require_readable(self, version: int) -> None:
        """Raise ``KeyStateError`` for a version before the oldest that decrypts, and while the key is soft-deleted."""
        if self._record.soft_deleted:
            raise KeyStateError(
                f"the Transit key {self._record.name!r} is soft-deleted: `keystead transit restore` takes it back"
            )
        if version < (oldest := self._record.min_decryption):
            raise KeyStateError(
                f"version {version} of the Transit key {self._record.name!r} decrypts no more, {oldest} is the oldest "
                "that does: `keystead transit config --min-decryption` sets it"
            )

    async def follow(self) -> None:
        """Look at the key's row again and again, until the task is cancelled."""
        await look_every(FRESH_S, self.look, sleep=self._clock.sleep, what="what the key allows")

    async def look(self) -> None:
        """Look at the key's row; of one that is gone its versions are destroyed, which says enough.

        Raises:
            KMSError: the store cannot be read, or the keyring cannot be loaded.
        """
        key = await self._room.read(self._record.tenant, self._record.name)
        if key is not None:
            self._record = key.record
