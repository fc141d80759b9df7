"""The Transit engine over a store: finds keys, and keeps those in use at hand."""

from __future__ import annotations

import os
from collections import OrderedDict
from dataclasses import dataclass
from typing import Final

from keystead.errors import InvalidInputError
from keystead.lifecycle.live_keyrings import LiveKeyrings
from keystead.ports import Random, TransitKeyRecord
from keystead.runtime.single_flight import SingleFlight
from keystead.transit.opened import Made, OpenKey

FRESH_S: Final = 2.0
"""How long a key's row is used without another look at it; a change made by this process is seen at once."""
AT_HAND: Final = 4096
NOT_FOUND: Final = "encryption key not found"


@dataclass(slots=True)
class _Held:
    key: OpenKey
    made: Made
    until: float
    epoch: int


class Transit:
    """Finds keys for operations; ``Administration`` makes and changes them."""

    def __init__(self, live: LiveKeyrings, *, random: Random = os.urandom) -> None:
        self.live = live
        self.random = random
        self._held: OrderedDict[tuple[str, str], _Held] = OrderedDict()
        self._flights: SingleFlight[OpenKey | None] = SingleFlight()

    async def open(self, tenant: str, name: str, *, missing: str = NOT_FOUND) -> OpenKey:
        """Return a key.

        Raises:
            InvalidInputError: there is none; ``missing`` is the message.
            KMSError: its keyring cannot be loaded.
        """
        key = await self.find(tenant, name)
        if key is None:
            raise InvalidInputError(missing)
        return key

    async def find(self, tenant: str, name: str) -> OpenKey | None:
        """Return a key, or None; errors as ``open``."""
        held = self._held.get((tenant, name))
        if held is not None and held.until > self.live.surroundings.clock.monotonic() and held.epoch == self._epoch:
            if not held.key.is_current:
                held.key = OpenKey(held.key.record, held.key.ring, held.made)
            return held.key
        return await self._flights.run((tenant, name), lambda: self.read(tenant, name))

    async def look_again(self, tenant: str, name: str) -> OpenKey:
        """Return a key as the store has it by now: another process may have rotated it."""
        await self.live.refresh()
        self.forget(tenant, name)
        return await self.open(tenant, name)

    async def load_again(self, key: OpenKey, version: int) -> None:
        """Load a version anew, to which another process may have added the private half."""
        loaded = key.versions[version]
        await self.live.load_again(key.ring, loaded.id)
        key.made.pairs.pop(loaded.id, None)

    def forget(self, tenant: str, name: str) -> None:
        """Have the next one who asks for a key look at its row again."""
        held = self._held.get((tenant, name))
        if held is not None:
            held.until = 0.0

    async def read(self, tenant: str, name: str) -> OpenKey | None:
        """Return a key as its row is now, or None; errors as ``open``."""
        until = self.live.surroundings.clock.monotonic() + FRESH_S
        epoch = self._epoch
        async with self.live.surroundings.store.reading(once=True) as work:
            record = await work.find_transit_key(tenant, name)
        if record is None:
            self._held.pop((tenant, name), None)
            return None
        return await self._hold(record, until, epoch)

    async def _hold(self, record: TransitKeyRecord, until: float, epoch: int) -> OpenKey:
        ring = await self.live.load(record.keyring)
        place = (record.tenant, record.name)
        held = self._held.get(place)
        made = Made(self.random) if held is None or held.key.ring is not ring else held.made
        key = OpenKey(record, ring, made)
        self._held[place] = _Held(key, made, until, epoch)
        self._held.move_to_end(place)
        while len(self._held) > AT_HAND:
            self._held.popitem(last=False)
        return key

    @property
    def _epoch(self) -> int:
        state = self.live.state
        return 0 if state is None else state.epoch
