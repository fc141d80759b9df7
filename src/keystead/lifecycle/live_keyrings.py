"""The keyrings of one process, loaded from the store and kept in step with it.

A keyring that somebody holds is always refreshed, whether or not it still fits the bounded cache; a keyring nobody
holds is forgotten when the cache is full. One KMS call unwraps the WRAP key, whatever the number of keyrings.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import replace
from typing import Final, TypeVar
from weakref import WeakKeyDictionary, WeakValueDictionary

from keystead import telemetry
from keystead.crypto.keyring import MESSAGES_PER_SALT, Keyring
from keystead.crypto.snapshot import KeyringSnapshot, LoadedKey
from keystead.errors import (
    ConflictError,
    InvalidInputError,
    KeyNotFoundError,
    KMSError,
)
from keystead.lifecycle.creation import create_keyring, create_wrap_keyring
from keystead.lifecycle.surroundings import SUITES, Surroundings
from keystead.lifecycle.wrapping import open_key
from keystead.model import (
    WRAP_KEYRING,
    DataKeyState,
    KeyRecord,
    KeyringPurpose,
    KeyringRecord,
    StoreState,
)
from keystead.ports import UnitOfWork

log = logging.getLogger("keystead.lifecycle")
T = TypeVar("T")

USABLE: Final = frozenset({DataKeyState.PRE_ACTIVE, DataKeyState.ACTIVE, DataKeyState.DECRYPT_ONLY})
CACHE_SIZE: Final = 1024
PAGE: Final = 1000
CREATE_ATTEMPTS: Final = 16


class LiveKeyrings:
    """Loads, creates, refreshes and forgets keyrings.

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
        gate: Callable[[Keyring, bool], KMSError | None] = lambda ring, encrypting: None,
        messages_per_salt: int = MESSAGES_PER_SALT,
        cache_size: int = CACHE_SIZE,
    ) -> None:
        self.surroundings = surroundings
        self.state: StoreState | None = None
        self._gate = gate
        self._messages_per_salt = messages_per_salt
        self._cache_size = cache_size
        self._rings: WeakValueDictionary[str, Keyring] = WeakValueDictionary()
        self._owners: WeakValueDictionary[int, Keyring] = WeakValueDictionary()
        self._recent: OrderedDict[str, Keyring] = OrderedDict()
        self._wrap_rings: dict[str, Keyring] = {}
        self._wrap_rows: dict[int, KeyRecord] = {}
        self._records: WeakKeyDictionary[Keyring, KeyringRecord] = WeakKeyDictionary()
        self._loading: dict[str, asyncio.Lock] = {}

    @property
    def store_id(self) -> str:
        """The store's id; ``open`` has read it."""
        if self.state is None:
            raise KeyNotFoundError("the store is not open yet")
        return self.state.store_id

    def new_ring(self, name: str, suite: int = 1) -> Keyring:
        """Return an empty keyring behind the gate, for ``load`` to fill."""
        return Keyring(
            name,
            suite=suite,
            random=self.surroundings.random,
            messages_per_salt=self._messages_per_salt,
            gate=self._gate,
            owner_of=self.owner_of,
        )

    def rings(self) -> list[Keyring]:
        """Return every keyring in use, the WRAP keyrings included."""
        return [*self._wrap_rings.values(), *self._rings.values()]

    async def open(self) -> StoreState:
        """Open the store and unwrap the active WRAP key (made on an empty store): the check that the KEK fits.

        Raises:
            KeyDecryptionFailError: the KEK is not the one that made this store.
        """
        self.state = await self.surroundings.store.open()
        seen = await asyncio.to_thread(self.surroundings.journal.read, self.store_id)
        if self.state.epoch < seen.epoch and not self.state.restored:
            self.state = await self._mark_restored()
        await self.wrap_ring(WRAP_KEYRING)
        if not self.state.restored:
            await asyncio.to_thread(self.surroundings.journal.append, self.store_id, epoch=self.state.epoch)
        return self.state

    async def wrap_ring(self, name: str) -> Keyring:
        """Return the WRAP keyring ``name``, its active version unwrapped."""
        async with self._lock(name):
            if (ring := self._wrap_rings.get(name)) is not None:
                return ring
            keyring = self.surroundings.new_keyring(name, KeyringPurpose.WRAP)
            active, key = await _retry_conflicts(lambda: create_wrap_keyring(self.surroundings, self.store_id, keyring))
            ring = self.new_ring(name)
            self._wrap_rows[active.id] = active
            key = key or await self.surroundings.wrapper.unwrap(self.store_id, active)
            ring.load(KeyringSnapshot({active.id: LoadedKey(active.id, active.version, bytearray(key))}, active.id))
            self._wrap_rings[name] = ring
            return ring

    async def load(
        self,
        name: str,
        *,
        create: KeyringRecord | None = None,
        into: Keyring | None = None,
    ) -> Keyring:
        """Return the keyring ``name`` with all its usable versions.

        Args:
            create: makes the keyring if there is none (or it has no active version and never had one).
            into: an empty keyring to fill, for a manager that hands it out before it is loaded.

        Raises:
            KeyNotFoundError: no such keyring, and ``create`` is None.
            InvalidInputError: it exists with another purpose or algorithm than ``create`` says.
        """
        async with self._lock(name):
            ring = self._rings.get(name)
            if ring is None or into is not None:
                ring = await self._load(name, create, into)
            self._keep(ring)
            return ring

    async def _load(self, name: str, create: KeyringRecord | None, into: Keyring | None) -> Keyring:
        telemetry.cache_event("keyring_load")
        record, rows = await self._read(name)
        if create is not None:
            if record is not None and (record.purpose, record.algorithm) != (create.purpose, create.algorithm):
                raise InvalidInputError(
                    f"keyring {name!r} exists with purpose {record.purpose} and algorithm {record.algorithm}, "
                    f"not {create.purpose} and {create.algorithm}; use another name"
                )
            if not any(row.state is DataKeyState.ACTIVE for row in rows) and not self._is_restored():
                wrap_ring = await self.wrap_ring(create.wrap_keyring)
                await _retry_conflicts(lambda: create_keyring(self.surroundings, self.store_id, create, wrap_ring))
                record, rows = await self._read(name)
        if record is None:
            raise KeyNotFoundError(f"no keyring {name!r} in this store; `keystead key create {name}` makes it")
        ring = into or self.new_ring(name, SUITES.get(record.algorithm, 0))
        keys = {row.id: await self.unwrap(record, row) for row in rows if row.state.can_decrypt}
        self._records[ring] = record
        self._rings[name] = ring
        self._apply(ring, rows, keys)
        await self._note(rows)
        return ring

    async def _read(self, name: str) -> tuple[KeyringRecord | None, list[KeyRecord]]:
        async with self.surroundings.store.reading() as work:
            return await work.find_keyring(name), await _all_keys(work, keyring=name)

    async def unwrap(self, keyring: KeyringRecord, row: KeyRecord) -> LoadedKey:
        """Return a row's key, through the WRAP version it names (unwrapped by the KMS if that is not loaded)."""
        ring = await self.wrap_ring(keyring.wrap_keyring or WRAP_KEYRING)
        await self.ensure_wrap_key(ring, row)
        return LoadedKey(row.id, row.version, bytearray(open_key(ring, self.store_id, row)))

    async def ensure_wrap_key(self, ring: Keyring, row: KeyRecord) -> None:
        """Unwrap the WRAP version that wraps ``row``, unless it is loaded."""
        if row.wrapped_by is None or row.wrapped_by in ring.snapshot.keys:
            return
        async with self._lock(ring.name):
            if row.wrapped_by in ring.snapshot.keys:
                return
            async with self.surroundings.store.reading() as work:
                wrap_row = await work.find_key(row.wrapped_by)
            if wrap_row is None or wrap_row.keyring != ring.name or not wrap_row.state.can_decrypt:
                raise KeyNotFoundError(
                    f"data key {row.id} is wrapped by WRAP key {row.wrapped_by}, which this store cannot use; "
                    "restore it from an export"
                )
            await self._add_wrap_key(ring, wrap_row)

    async def sealing_ring(self, name: str) -> Keyring:
        """Return the WRAP keyring ``name`` ready to wrap under the version that is active in the store."""
        ring = await self.wrap_ring(name)
        async with self.surroundings.store.reading() as work:
            active = await work.find_active(name)
        if active is not None and active.id != ring.snapshot.active:
            async with self._lock(name):
                await self._add_wrap_key(ring, active)
        return ring

    async def _add_wrap_key(self, ring: Keyring, row: KeyRecord) -> None:
        key = await self.surroundings.wrapper.unwrap(self.store_id, row)
        self._wrap_rows[row.id] = row
        held = ring.snapshot
        keys = {**held.keys, row.id: LoadedKey(row.id, row.version, bytearray(key))}
        active = row.id if row.state is DataKeyState.ACTIVE else held.active
        ring.load(replace(held, keys=keys, active=active))

    async def refresh(self) -> bool:
        """Read the epoch and every row changed since the last one; return whether anything had changed.

        A store whose epoch went back was restored: everything in use is loaded again, and it stays read-only until
        ``recover``.
        """
        if self.state is None:
            return False
        async with self.surroundings.store.reading() as work:
            state = await work.state()
            if state == self.state:
                return False
            went_back = state.epoch < self.state.epoch
            since = 0 if went_back else self.state.epoch
            rows = await _all_keys(work, published_after=since)
        if went_back and not state.restored:
            state = await self._mark_restored()
        await self.merge(rows, replace_all=went_back)
        self.state = state
        if not state.restored:
            await asyncio.to_thread(self.surroundings.journal.append, self.store_id, epoch=state.epoch)
        if state.restored:
            for ring in self.rings():
                ring.block()
        return True

    async def _mark_restored(self) -> StoreState:
        log.error("the store went back to an earlier epoch: it was restored and encrypts no more until recovered")
        async with self.surroundings.store.transaction() as work:
            await work.set_restored(True)
            return replace(await work.state(), restored=True)

    async def merge(self, rows: Iterable[KeyRecord], *, replace_all: bool = False) -> None:
        """Bring changed rows into the keyrings in use. A row that does not unwrap is logged and left out."""
        by_keyring: dict[str, list[KeyRecord]] = {}
        for row in rows:
            by_keyring.setdefault(row.keyring, []).append(row)
        for name, wrap_ring in list(self._wrap_rings.items()):
            for row in by_keyring.get(name, ()):
                self._wrap_rows[row.id] = row
                if row.id not in wrap_ring.snapshot.keys and row.state is DataKeyState.ACTIVE:
                    try:
                        await self._add_wrap_key(wrap_ring, row)
                    except KMSError:
                        log.exception("the active WRAP key could not be unwrapped", extra={"data_key_id": row.id})
            self._apply(wrap_ring, by_keyring.get(name, ()), {})
        for name, ring in list(self._rings.items()):
            changed = by_keyring.get(name, [])
            if changed:
                await self._merge_into(ring, changed, replace_all)

    async def add_row(self, ring: Keyring, row: KeyRecord) -> None:
        """Bring one row into ``ring`` ahead of the next refresh."""
        fresh = {row.id: await self.unwrap(self._records[ring], row)} if row.state.can_decrypt else {}
        self._apply(ring, [row], fresh)
        await self._note([row])

    async def _merge_into(self, ring: Keyring, rows: list[KeyRecord], replace_all: bool) -> None:
        keys = {}
        for row in rows:
            held = ring.snapshot.keys.get(row.id)
            if row.state.can_decrypt and held is None:
                try:
                    keys[row.id] = await self.unwrap(self._records[ring], row)
                except KMSError:
                    log.exception("a data key could not be unwrapped", extra={"data_key_id": row.id})
        self._apply(ring, rows, keys, replace_all=replace_all)
        await self._note(rows)

    def _apply(
        self, ring: Keyring, rows: Iterable[KeyRecord], fresh: dict[int, LoadedKey], *, replace_all: bool = False
    ) -> None:
        """Swap in a snapshot with ``rows`` as they are now and the keys in ``fresh`` added."""
        old = ring.snapshot
        new = KeyringSnapshot() if replace_all else old
        keys, withheld, dropped = dict(new.keys), dict(new.withheld), []
        for row in sorted(rows, key=lambda row: row.version):
            key = fresh.get(row.id) or old.keys.get(row.id)
            withheld.pop(row.id, None)
            if row.state.can_decrypt:
                if key is not None:
                    keys[row.id] = key
                    if ring.name in self._rings:
                        self._owners[row.id] = ring
            else:
                withheld[row.id] = row.state
                if keys.pop(row.id, None) is not None and key is not None:
                    dropped.append(key)
            if row.state is DataKeyState.ACTIVE and key is not None:
                new = KeyringSnapshot({}, row.id, row.activated_at, row.rotate_after, row.expires_at)
            elif new.active == row.id:
                new = KeyringSnapshot()
        ring.load(replace(new, keys=keys, withheld=withheld))
        for key in dropped:
            key.wipe()

    async def _note(self, rows: Iterable[KeyRecord]) -> None:
        """Write the keys seen to the journal, outside the database."""
        rows = list(rows)
        if rows:
            await asyncio.to_thread(
                self.surroundings.journal.append,
                self.store_id,
                keys={row.id: (row.keyring, row.version) for row in rows},
                destroyed=[row.id for row in rows if row.state is DataKeyState.DESTROYED],
            )

    def wrap_row(self, key_id: int) -> KeyRecord | None:
        """Return the row of a WRAP version in use."""
        return self._wrap_rows.get(key_id)

    def wipe(self) -> None:
        """Forget every key."""
        for ring in self.rings():
            ring.wipe()
        self._recent.clear()
        self._wrap_rings.clear()

    def drop_handles(self) -> None:
        """Forget what belongs to the event loop of a parent process; keys stay loaded."""
        self._loading = {}

    def owner_of(self, key_id: int) -> str | None:
        """Return the name of the keyring in use that holds ``key_id``, or None."""
        ring = self._owners.get(key_id)
        return None if ring is None else ring.name

    def _is_restored(self) -> bool:
        return self.state is not None and self.state.restored

    def _keep(self, ring: Keyring) -> None:
        self._recent[ring.name] = ring
        self._recent.move_to_end(ring.name)
        while len(self._recent) > self._cache_size:
            name, _ = self._recent.popitem(last=False)
            telemetry.cache_event("keyring_evicted")
            self._loading.pop(name, None)

    def _lock(self, name: str) -> asyncio.Lock:
        return self._loading.setdefault(name, asyncio.Lock())


async def _all_keys(
    work: UnitOfWork, *, keyring: str | None = None, published_after: int | None = None
) -> list[KeyRecord]:
    rows: list[KeyRecord] = []
    while True:
        after = rows[-1].id if rows else 0
        page = await work.keys(keyring=keyring, published_after=published_after, after_id=after, limit=PAGE)
        rows += page
        if len(page) < PAGE:
            return rows


async def _retry_conflicts(action: Callable[[], Awaitable[T]]) -> T:
    """Do ``action`` again when another process was faster; it then finds what that process made."""
    for _ in range(CREATE_ATTEMPTS - 1):
        with contextlib.suppress(ConflictError):
            return await action()
    return await action()
