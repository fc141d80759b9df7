"""The keyrings of one process that are in use, and which of them stay when nobody holds them."""

from __future__ import annotations

import contextlib
from collections import Counter, OrderedDict
from typing import Final
from weakref import WeakKeyDictionary, WeakValueDictionary

from keystead import telemetry
from keystead.crypto.keyring import MESSAGES_PER_SALT, Gate, Keyring
from keystead.lifecycle.surroundings import Surroundings
from keystead.lifecycle.wrap_keyrings import WrapKeyrings
from keystead.model import DataKeyState, KeyRecord, KeyringRecord
from keystead.runtime.locks import NamedLocks

CACHE_SIZE: Final = 1024


class HeldKeyrings(WrapKeyrings):
    """Finds, counts and forgets keyrings; ``LiveKeyrings`` loads them.

    Args:
        surroundings: the ports.
        gate: asked by every keyring off its hot path.
        messages_per_salt: see ``Keyring``.
        cache_size: how many keyrings stay loaded although nobody holds them.
    """

    def __init__(
        self,
        surroundings: Surroundings,
        *,
        gate: Gate = lambda ring, encrypting: None,
        messages_per_salt: int = MESSAGES_PER_SALT,
        cache_size: int = CACHE_SIZE,
    ) -> None:
        super().__init__(surroundings, gate=gate, messages_per_salt=messages_per_salt)
        self._cache_size = cache_size
        self._rings: WeakValueDictionary[str, Keyring] = WeakValueDictionary()
        self._owners: WeakValueDictionary[int, Keyring] = WeakValueDictionary()
        self._recent: OrderedDict[str, Keyring] = OrderedDict()
        self._records: WeakKeyDictionary[Keyring, KeyringRecord] = WeakKeyDictionary()
        self._messages: Counter[int] = Counter()
        self._bytes: Counter[int] = Counter()

    def rings(self) -> list[Keyring]:
        """Return every keyring in use, the WRAP keyrings included."""
        return [*self._wrap_rings.values(), *self._rings.values()]

    def owner_of(self, key_id: int) -> str | None:
        """Return the name of the keyring in use that holds ``key_id``, or None."""
        ring = self.holder_of(key_id)
        return None if ring is None else ring.name

    def holder_of(self, key_id: int) -> Keyring | None:
        """Return the keyring in use that ``key_id`` is of, usable or not."""
        return self._owners.get(key_id)

    def find(self, name: str) -> Keyring | None:
        """Return the keyring ``name`` if it is in use, and let others make room in the cache first."""
        ring = self._rings.get(name)
        if ring is not None:
            # Whatever thread asks, another may be making room.
            with contextlib.suppress(KeyError):
                self._recent.move_to_end(name)
        return ring

    def take_uses(self) -> dict[int, tuple[int, int]]:
        """Return messages and bytes sealed under each data key since the last call, by keyrings now gone as well."""
        for ring in self.rings():
            self._count(ring)
        messages, self._messages = self._messages, Counter()
        sizes, self._bytes = self._bytes, Counter()
        return {key_id: (messages[key_id], sizes[key_id]) for key_id in messages.keys() | sizes.keys()}

    def _count(self, ring: Keyring) -> None:
        for key_id, (messages, size) in ring.take_uses().items():
            self._messages[key_id] += messages
            self._bytes[key_id] += size

    def wipe(self) -> None:
        """Forget every key."""
        for ring in self.rings():
            ring.wipe()
        self._recent.clear()
        self._wrap_rings.clear()

    def drop_handles(self) -> None:
        """Forget what belongs to a parent process: its locks and its counts. Keys stay loaded."""
        self._lock = NamedLocks()
        self._messages.clear()
        self._bytes.clear()

    def _matters(self, row: KeyRecord) -> bool:
        """Whether a changed row concerns this process: of a keyring in use, or a tombstone, which all remember."""
        is_in_use = row.keyring in self._rings or row.keyring in self._wrap_rings
        return is_in_use or row.state is DataKeyState.DESTROYED

    def _keep(self, ring: Keyring) -> None:
        self._recent[ring.name] = ring
        self._recent.move_to_end(ring.name)
        while len(self._recent) > self._cache_size:
            _, evicted = self._recent.popitem(last=False)
            self._count(evicted)
            telemetry.cache_event("keyring_evicted")
