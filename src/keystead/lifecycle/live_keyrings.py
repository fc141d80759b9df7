"""The keyrings of one process, loaded from the store and kept in step with it.

A keyring that somebody holds is always refreshed, whether or not it still fits the bounded cache; a keyring nobody
holds is forgotten when the cache is full. One KMS call unwraps the WRAP key, whatever the number of keyrings.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection, Iterable
from contextlib import AsyncExitStack
from dataclasses import replace
from typing import Final

from keystead import telemetry
from keystead.crypto.keyring import Keyring
from keystead.crypto.snapshot import LoadedKey
from keystead.errors import (
    InvalidInputError,
    KeyDecryptionFailError,
    KMSError,
    StorageOperationError,
    StoreRestoredError,
)
from keystead.lifecycle.algorithms import suite_of
from keystead.lifecycle.creation import create_keyring, no_keyring
from keystead.lifecycle.held_keyrings import HeldKeyrings
from keystead.lifecycle.key_pages import all_keys
from keystead.lifecycle.noticing import mark_restored
from keystead.lifecycle.wrap_keyrings import retry_conflicts
from keystead.model import WRAP_KEYRING, DataKeyState, KeyRecord, KeyringPurpose, KeyringRecord, StoreState

log = logging.getLogger("keystead.lifecycle")

AT_ONCE: Final = 500
"""How many keyrings are loaded by one read."""
EPOCH_LEAP: Final = 1_000_000
"""What a recovery adds to the highest epoch known, so that no node that knew a higher one takes the recovered store
for older. A node that sees half of it go by at once has missed a restore."""
_REFRESH: Final = "keystead.refresh"


class LiveKeyrings(HeldKeyrings):
    """Loads, creates and refreshes keyrings."""

    _reads = 0
    has_noticed_restore = False

    async def open(self) -> StoreState:
        """Open the store and unwrap the active WRAP key (made on an empty store): the check that the KEK fits.

        Raises:
            KeyDecryptionFailError: the KEK is not the one that made this store.
        """
        self.state = await self.surroundings.store.open()
        seen = await asyncio.to_thread(self.surroundings.journal.read, self.store_id)
        if self.state.epoch < seen.epoch and not self.state.restored:
            self.state = await self._mark_restored(seen.epoch)
        async with self.surroundings.store.reading() as work:
            gone = await all_keys(work, states={DataKeyState.DESTROYED}, published_after=seen.epoch)
        await self._note_destroyed(gone)
        await self.wrap_ring(WRAP_KEYRING)
        await self._note_epoch()
        return self.state

    async def load(self, name: str, *, create: KeyringRecord | None = None, into: Keyring | None = None) -> Keyring:
        """Return the keyring ``name`` with all its usable versions.

        Args:
            create: makes the keyring if there is none, or gives it an active version if it has none.
            into: an empty keyring to fill, for a manager that hands it out before it is loaded.

        Raises:
            KeyNotFoundError: no such keyring, and ``create`` is None.
            StoreRestoredError: no such keyring, and the store must be recovered before it can be made.
            InvalidInputError: it exists with another purpose or algorithm than ``create`` says.
            KeyDecryptionFailError: its active version does not unwrap.
        """
        async with self._lock(name):
            ring = self._rings.get(name)
            if ring is not None and into is None:
                _require_kind(self._records[ring], create)
            if ring is None or into is not None or (create is not None and ring.snapshot.active is None):
                ring = await self._load(name, create, into or ring)
            self._keep(ring)
            return ring

    async def _load(self, name: str, create: KeyringRecord | None, into: Keyring | None) -> Keyring:
        telemetry.cache_event("keyring_load")
        reads = self._reads
        record, rows, epoch = await self._read(name)
        if create is not None and not any(row.state is DataKeyState.ACTIVE for row in rows):
            if record is None and self._is_restored():
                raise StoreRestoredError
            if not self._is_restored():
                await self._create(record or create)
                reads = self._reads
                record, rows, epoch = await self._read(name)
        if record is None:
            raise no_keyring(name)
        _require_kind(record, create)
        keys, failed = await self._unwrap_all(record, rows)
        await self.uses.loaded(name, (key.version for key in keys.values()), failed)
        ring = into or self._new(record)
        is_new = self._rings.get(name) is not ring
        self._records[ring] = record
        self._rings[name] = ring
        try:
            await self._take(ring, rows, keys)
        except BaseException:
            if is_new:
                del self._rings[name]  # empty, it would be taken for a loaded one
            raise
        if reads != self._reads or self._lock(_REFRESH).locked():
            # A refresh that began before this keyring was known to it has passed it over.
            _, later, _ = await self._read(name, published_after=epoch)
            await self._merge_into(ring, later)
        return ring

    async def load_all(self, names: Collection[str]) -> dict[str, Keyring]:
        """Return those of these keyrings that can be loaded, by name; one read for all that are not.

        One that is not there, or whose active version does not unwrap, is left out: ``load`` says why.
        """
        found = {name: ring for name in names if (ring := self.find(name)) is not None}
        # In one order, so that two who load the same never wait for each other.
        missing = sorted({*names} - found.keys())
        for at in range(0, len(missing), AT_ONCE):
            part = missing[at : at + AT_ONCE]
            async with AsyncExitStack() as stack:
                for name in part:
                    await stack.enter_async_context(self._lock(name))
                found |= await self._load_all(part)
        return found

    async def _load_all(self, names: list[str]) -> dict[str, Keyring]:
        reads = self._reads
        async with self.surroundings.store.reading() as work:
            read = await work.keyrings_with_keys(names)
            epoch = (await work.state()).epoch
        for record, _ in read:
            # Before anything is unwrapped, for which a WRAP keyring's lock is taken.
            _require_kind(record, None)
        unwrapped = []
        for record, rows in read:
            telemetry.cache_event("keyring_load")
            try:
                keys, failed = await self._unwrap_all(record, rows)
            except KeyDecryptionFailError:
                log.exception("the active version of a keyring does not unwrap", extra={"keyring": record.name})
                continue
            await self.uses.loaded(record.name, (key.version for key in keys.values()), failed)
            unwrapped.append((record, rows, keys))
        await self._note([row for _, rows, _ in unwrapped for row in rows])
        loaded: dict[str, Keyring] = {}
        for record, rows, keys in unwrapped:
            # Whoever had it in use may have let go of it, or taken it up, while others held its lock.
            ring = self._rings.get(record.name) or self._new(record)
            self._use(ring, rows, keys)
            self._rings[record.name] = loaded[record.name] = ring
            self._keep(ring)
        if reads != self._reads or self._lock(_REFRESH).locked():
            # A refresh that began before these keyrings were known to it has passed them over.
            async with self.surroundings.store.reading() as work:
                later = await all_keys(work, published_after=epoch, only=lambda row: row.keyring in loaded)
            for name, ring in loaded.items():
                await self._merge_into(ring, [row for row in later if row.keyring == name])
        return loaded

    def _new(self, record: KeyringRecord) -> Keyring:
        ring = self.new_ring(record.name, suite_of(record.algorithm), self.owner_of)
        self._records[ring] = record
        return ring

    async def _create(self, keyring: KeyringRecord) -> None:
        async def create() -> None:
            wrap_ring = await self.sealing_ring(keyring.wrap_keyring)
            await create_keyring(self.surroundings, self.store_id, keyring, wrap_ring)

        await retry_conflicts(create)

    async def _read(
        self, name: str, published_after: int | None = None
    ) -> tuple[KeyringRecord | None, list[KeyRecord], int]:
        async with self.surroundings.store.reading() as work:
            rows = await all_keys(work, keyring=name, published_after=published_after)
            return await work.find_keyring(name), rows, (await work.state()).epoch

    async def _unwrap_all(
        self, record: KeyringRecord, rows: Iterable[KeyRecord]
    ) -> tuple[dict[int, LoadedKey], dict[int, str]]:
        """Unwrap every usable row. One that was altered is left out, unless it is the one that encrypts."""
        keys: dict[int, LoadedKey] = {}
        failed: dict[int, str] = {}
        for row in rows:
            if not row.state.can_decrypt:
                continue
            try:
                keys[row.id] = await self.unwrap(record, row)
            except KeyDecryptionFailError as exc:
                if row.state is DataKeyState.ACTIVE:
                    await self.uses.loaded(record.name, (), {row.id: exc.code})
                    raise
                failed[row.id] = exc.code
                log.exception("a data key does not unwrap; what it encrypted cannot be read", extra=_named(row))
        return keys, failed

    async def refresh(self) -> bool:
        """Read the epoch and every row changed since the last one; return whether anything had changed.

        A store whose epoch went back was restored: it stays read-only until ``recover``. Rows that could not be
        unwrapped because the KMS is away are read again by the next refresh, and until then this process does not
        say that it has seen them.
        """
        if self.state is None:
            return False
        async with self._lock(_REFRESH):
            known = self.state
            async with self.surroundings.store.reading() as work:
                state = await work.state()
                if state == known:
                    return False
                anew = state.epoch < known.epoch or state.epoch - known.epoch > EPOCH_LEAP // 2
                since = 0 if anew else known.epoch
                rows = await all_keys(work, published_after=since, only=self._matters)
            self._reads += 1
            await self._note_destroyed(rows)
            if state.epoch < known.epoch and not state.restored:
                # Of the epoch that the rows are of: what was changed since is read by the next refresh.
                state = replace(await self._mark_restored(known.epoch), epoch=state.epoch)
            is_complete = await self.merge(rows, anew=anew)
            self.state = state if is_complete else replace(state, epoch=known.epoch)
            if is_complete:
                await self._note_epoch()
            if state.restored:
                for ring in self.rings():
                    ring.block()
            return True

    async def _mark_restored(self, known: int) -> StoreState:
        state, is_marked = await mark_restored(self.surroundings, known)
        self.has_noticed_restore |= is_marked
        return state

    async def merge(self, rows: Iterable[KeyRecord], *, anew: bool = False) -> bool:
        """Bring changed rows into the keyrings in use, and return whether every row could be dealt with.

        A row that does not unwrap is logged and left out. With ``anew``, ``rows`` are all there are. Keys that may not
        be used any more are out of use even if this raises: what else there is cannot be recorded.
        """
        if anew:
            self._seen.clear()
        by_keyring: dict[str, list[KeyRecord]] = {}
        for row in rows:
            by_keyring.setdefault(row.keyring, []).append(row)
        for ring in self.rings():
            self._withdraw(ring, by_keyring.get(ring.name, ()))
        is_complete = True
        for name, wrap_ring in list(self._wrap_rings.items()):
            is_complete &= await self._merge_wrap_rows(wrap_ring, by_keyring.get(name, []), anew=anew)
        for name, ring in list(self._rings.items()):
            changed = by_keyring.get(name, [])
            if changed or anew:
                is_complete &= await self._merge_into(ring, changed, anew=anew)
        return is_complete

    def _withdraw(self, ring: Keyring, rows: Iterable[KeyRecord]) -> None:
        """Take keys that may not be used any more out of use, before anything that can fail."""
        withdrawn = [row for row in rows if not row.state.can_decrypt]
        if withdrawn:
            self._apply(ring, withdrawn, {})

    async def _merge_wrap_rows(self, ring: Keyring, rows: list[KeyRecord], *, anew: bool) -> bool:
        self._wrap_rows |= {row.id: row for row in rows}
        is_complete = True
        self._apply(ring, rows, {}, anew=anew)
        for row in rows:
            if row.state is DataKeyState.ACTIVE and row.id not in ring.snapshot.keys:
                try:
                    await self._add_wrap_key(ring, row)
                except KMSError as exc:
                    is_complete &= not exc.retryable
                    log.exception("the active WRAP key could not be unwrapped", extra=_named(row))
        return is_complete

    async def add_row(self, ring: Keyring, row: KeyRecord) -> None:
        """Bring one row into ``ring`` ahead of the next refresh."""
        self._withdraw(ring, [row])
        fresh = {row.id: await self.unwrap(self._records[ring], row)} if row.state.can_decrypt else {}
        await self.uses.loaded(ring.name, [row.version for _ in fresh])
        await self._take(ring, [row], fresh)

    async def load_again(self, ring: Keyring, key_id: int) -> None:
        """Unwrap a data key anew, whose row has another key in it by now. Errors as ``unwrap``."""
        async with self.surroundings.store.reading() as work:
            row = await work.find_key(key_id)
        if row is None or not row.state.can_decrypt or key_id not in ring.snapshot.keys:
            return
        key = await self.unwrap(self._records[ring], row)
        ring.load(replace(ring.snapshot, keys={**ring.snapshot.keys, key_id: key}))

    async def load_keys(self, key_ids: Iterable[int], *, skip_damaged: bool = False) -> dict[int, Keyring]:
        """Return the keyrings that data keys are of, loaded; ids that no row has are left out.

        Raises:
            KMSError: as ``load``, unless keyrings that do not unwrap are left out as well.
        """
        found, wanted = {}, set[int]()
        for key_id in key_ids:
            if (held := self.holder_of(key_id)) is not None:
                found[key_id] = held
            else:
                wanted.add(key_id)
        if not wanted:
            return found
        async with self.surroundings.store.reading() as work:
            rows = await work.find_keys(wanted)
        rings = await self.load_all({row.keyring for row in rows})
        for row in rows:
            if row.keyring not in rings and skip_damaged:
                continue
            ring = rings.get(row.keyring) or await self.load(row.keyring)
            if row.id not in ring.snapshot.keys and row.id not in ring.snapshot.withheld:
                await self.add_row(ring, row)
            found[row.id] = ring
        return found

    async def _merge_into(self, ring: Keyring, rows: list[KeyRecord], *, anew: bool = False) -> bool:
        keys: dict[int, LoadedKey] = {}
        failed: dict[int, str] = {}
        is_complete = True
        for row in rows:
            if row.state.can_decrypt and row.id not in ring.snapshot.keys:
                try:
                    keys[row.id] = await self.unwrap(self._records[ring], row)
                except KMSError as exc:
                    is_complete &= not exc.retryable
                    failed[row.id] = exc.code
                    log.exception("a data key could not be unwrapped", extra=_named(row))
        await self.uses.loaded(ring.name, (key.version for key in keys.values()), failed)
        await self._take(ring, rows, keys, anew=anew)
        return is_complete

    async def _take(
        self, ring: Keyring, rows: list[KeyRecord], fresh: dict[int, LoadedKey], *, anew: bool = False
    ) -> None:
        """Write the keys to the journal, outside the database, and then use them."""
        await self._note(rows)
        self._use(ring, rows, fresh, anew=anew)

    async def _note(self, rows: list[KeyRecord]) -> None:
        if rows:
            await self._journal(keys={row.id: (row.keyring, row.version) for row in rows})
            await self._note_destroyed(rows)

    def _use(self, ring: Keyring, rows: list[KeyRecord], fresh: dict[int, LoadedKey], *, anew: bool = False) -> None:
        for row in self._apply(ring, rows, fresh, anew=anew):
            if row.id in ring.snapshot.keys or row.id in ring.snapshot.withheld:
                self._owners[row.id] = ring

    async def _note_destroyed(self, rows: Iterable[KeyRecord]) -> None:
        if destroyed := [row.id for row in rows if row.state is DataKeyState.DESTROYED]:
            await self._journal(destroyed=destroyed)

    async def _note_epoch(self) -> None:
        if self.state is not None and not self.state.restored:
            await self._journal(epoch=self.state.epoch)

    async def _journal(
        self, *, epoch: int | None = None, keys: dict[int, tuple[str, int]] | None = None, destroyed: Iterable[int] = ()
    ) -> None:
        """Append to the journal; what cannot be written must not keep anybody from decrypting."""
        append = self.surroundings.journal.append
        try:
            await asyncio.to_thread(append, self.store_id, epoch=epoch, keys=keys, destroyed=list(destroyed))
        except StorageOperationError as exc:
            log.warning("the state journal could not be written: %s", exc.code)

    def _is_restored(self) -> bool:
        return self.state is not None and self.state.restored


def _require_kind(record: KeyringRecord, wanted: KeyringRecord | None) -> None:
    if record.purpose is KeyringPurpose.WRAP:
        raise InvalidInputError(f"keyring {record.name!r} wraps keys and encrypts no data; use another name")
    if wanted is not None and (record.purpose, record.algorithm) != (wanted.purpose, wanted.algorithm):
        raise InvalidInputError(
            f"keyring {record.name!r} exists with purpose {record.purpose} and algorithm {record.algorithm}, "
            f"not {wanted.purpose} and {wanted.algorithm}; use another name"
        )


def _named(row: KeyRecord) -> dict[str, int]:
    return {"data_key_id": row.id}
