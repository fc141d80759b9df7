"""Fetching a data key that a ciphertext names and this process has not loaded.

One store read however many callers wait for the same id; a flood of invented ids costs a bounded number of reads.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from typing import Final

from keystead import telemetry
from keystead.crypto.hot_path import FAILED
from keystead.crypto.keyring import Keyring
from keystead.errors import DataKeyNotLoadedError, DecryptionError, KeyNotFoundError
from keystead.lifecycle.live_keyrings import LiveKeyrings
from keystead.model import KeyRecord
from keystead.runtime.single_flight import SingleFlight

ABSENT_FOR_S: Final = 1.0
ABSENT_MOST: Final = 10_000
READS_PER_S: Final = 100.0


class Lookup:
    """Loads single data keys on demand."""

    def __init__(self, live: LiveKeyrings) -> None:
        self._live = live
        self._clock = live.surroundings.clock
        self._flights: SingleFlight[None] = SingleFlight()
        self._absent: OrderedDict[int | str, float] = OrderedDict()
        self._tokens = READS_PER_S
        self._refilled = self._clock.monotonic()

    async def fetch(self, ring: Keyring, key_id: int) -> None:
        """Load data key ``key_id`` into ``ring``.

        Raises:
            DataKeyNotLoadedError: the store has no such key (the message says whether it once had).
            DecryptionError: it belongs to another keyring.
        """
        if key_id in ring.snapshot.keys or key_id in ring.snapshot.withheld:
            return
        await self._flights.run((ring.name, key_id), lambda: self._read(ring, key_id))

    async def legacy(self, version: str) -> KeyRecord:
        """Return the row of the data key imported under ``version``.

        Raises:
            KeyNotFoundError: none was.
            DataKeyNotLoadedError: too many unknown versions were asked for at once.
        """
        if self._spend(version):
            async with self._live.surroundings.store.reading() as work:
                row = await work.find_legacy_key(version)
            if row is not None:
                return row
            self._note_absent(version)
        raise KeyNotFoundError(
            f"no key of the legacy version {version} was imported; `keystead import legacy --from` brings it over"
        )

    async def _read(self, ring: Keyring, key_id: int) -> None:
        if not self._spend(key_id):
            raise DataKeyNotLoadedError(key_id, _unknown(key_id))
        telemetry.cache_event("data_key_miss")
        async with self._live.surroundings.store.reading() as work:
            row = await work.find_key(key_id)
        if row is None:
            self._note_absent(key_id)
            raise DataKeyNotLoadedError(key_id, await self.absence_of(key_id))
        if row.keyring != ring.name:
            raise DecryptionError(FAILED)
        await self._live.add_row(ring, row)

    def _spend(self, key: int | str) -> bool:
        """Take one store read from what a second allows; False when ``key`` was just found to be absent."""
        now = self._clock.monotonic()
        asked = self._absent.get(key)
        if asked is not None and now - asked < ABSENT_FOR_S:
            return False
        self._tokens = min(READS_PER_S, self._tokens + (now - self._refilled) * READS_PER_S)
        self._refilled = now
        if self._tokens < 1:
            key_id = key if isinstance(key, int) else 0
            raise DataKeyNotLoadedError(key_id, f"data key {key} is not loaded: too many unknown ones at once")
        self._tokens -= 1
        return True

    def _note_absent(self, key: int | str) -> None:
        self._absent[key] = self._clock.monotonic()
        while len(self._absent) > ABSENT_MOST:
            self._absent.popitem(last=False)

    async def absence_of(self, key_id: int) -> str:
        """Return what is known of a data key that the store does not have."""
        seen = await asyncio.to_thread(self._live.surroundings.journal.read, self._live.store_id)
        if key_id in seen.keys:
            keyring, version = seen.keys[key_id]
            return (
                f"data key {key_id} (keyring {keyring!r} version {version}) existed and is gone from this store, which "
                "was restored from an older backup; a newer export or backup brings it back"
            )
        return _unknown(key_id)


def _unknown(key_id: int) -> str:
    return f"data key {key_id} is not in this store: name the store it was encrypted with, or a newer copy"
