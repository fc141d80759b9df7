"""Rotation of index keys: two versions live until every row has been hashed under the new one.

A new version is pre-active from ``begin`` to ``finish``, and live all that time: whoever writes an index writes both,
and whoever queries looks for both. In between a re-encryption fills the rows of every registered field. Nothing here
happens by age or by itself. See docs/adr/0020-index-keys-by-parity.md.
"""

from __future__ import annotations

import shlex
from dataclasses import dataclass, replace
from typing import Final

from keystead import telemetry
from keystead.errors import ConflictError, KeyNotFoundError, KeyStateError, StoreRestoredError
from keystead.lifecycle.creation import require_usable_wrap
from keystead.lifecycle.live_keyrings import LiveKeyrings
from keystead.lifecycle.rotation import make_active
from keystead.lifecycle.surroundings import Surroundings
from keystead.lifecycle.wrap_keyrings import retry_conflicts
from keystead.lifecycle.wrapping import WRAP_KEY_SIZE, seal_key
from keystead.model import DataKeyState, KeyRecord, KeyringPurpose, KeyringRecord
from keystead.ports import AuditEvent, Detail, UnitOfWork

HASH_KEYRING: Final = "keystead.index"
"""The keyring of ``hash_field``, whose values lie where nobody knows."""

_LIVE: Final = frozenset({DataKeyState.PRE_ACTIVE, DataKeyState.ACTIVE, DataKeyState.DECRYPT_ONLY})


@dataclass(frozen=True, slots=True)
class _Ring:
    """What the store says of an index keyring."""

    record: KeyringRecord
    active: KeyRecord
    waiting: KeyRecord | None
    others: list[KeyRecord]


class IndexRotation:
    """Rotates keyrings of purpose INDEX, whose versions cost a pass over the data."""

    def __init__(self, live: LiveKeyrings) -> None:
        self._live = live
        self._s: Surroundings = live.surroundings

    async def begin(self, name: str) -> KeyRecord:
        """Add the next version as pre-active, and return it; the one that is waiting already, if there is one.

        The version is of the other parity than the active one, since parities have columns of their own.

        Raises:
            KeyNotFoundError: no such keyring.
            KeyStateError: it is no index keyring, it is the one of ``hash_field``, no field is registered for it, or
                it holds a version that is neither active nor waiting.
            StoreRestoredError: the store must be recovered first.
        """
        return await retry_conflicts(lambda: self._begin(name))

    async def is_ready(self, name: str) -> bool:
        """Return whether a version is waiting, and every live node has loaded it: rows may then be filled."""
        await self._live.refresh()
        async with self._s.store.reading() as work:
            waiting = (await _look(work, name)).waiting
            others = await self._s.other_nodes(work)
        return waiting is not None and all(node.seen_epoch >= waiting.published_epoch for node in others)

    async def note_indexed(self, field_id: str, version: int) -> None:
        """Note that every row of a field has been hashed under ``version``.

        Raises:
            KeyNotFoundError: no such field is registered.
        """
        async with self._s.store.transaction() as work:
            is_known = await work.note_indexed(field_id, version)
            details: dict[str, Detail] = {"field": field_id, "version": version}
            await self._s.audit.record(work, AuditEvent("field.indexed", details=details))
        if not is_known:
            raise KeyNotFoundError(f"no field {field_id!r} is registered; `km.register_field` does that")

    async def finish(self, name: str) -> KeyRecord | None:
        """Make the waiting version active and disable the one before, if every registered field has been filled.

        Returns the version that became active; None when there was nothing to finish, or not yet.

        Raises:
            KeyNotFoundError, KeyStateError: as ``begin``.
            StoreRestoredError: the store must be recovered first.
        """
        async with self._s.store.transaction() as work:
            ring = await _look(work, name, lock=True)
            waiting = ring.waiting
            fields = await work.fields(name)
            if waiting is None or not fields:
                return None
            if any((field.indexed_version or 0) < waiting.version for field in fields):
                return None
            for row in (ring.active, *ring.others):
                await self._disable(work, row)
            row = await make_active(self._s, work, ring.record, waiting)
        await self._live.refresh()
        return row

    async def abandon(self, name: str) -> KeyRecord | None:
        """Give a rotation up before it has finished, and return the version that is not used after all.

        The version before has been written all along, so nothing has to be filled again. None when none is waiting.

        Raises:
            KeyNotFoundError, KeyStateError, StoreRestoredError: as ``finish``.
        """
        async with self._s.store.transaction() as work:
            waiting = (await _look(work, name, lock=True)).waiting
            row = None if waiting is None else await self._disable(work, waiting)
        await self._live.refresh()
        return row

    async def _begin(self, name: str) -> KeyRecord:
        async with self._s.store.reading() as work:
            before = await _look(work, name)
            has_fields = bool(await work.fields(name))
        if before.waiting is not None:
            telemetry.rotation("adopted")
            await self._live.refresh()
            return before.waiting
        if before.others:
            raise KeyStateError(
                f"version {before.others[0].version} of keyring {name!r} is still {before.others[0].state}, and three "
                "index keys at once cannot be told apart by two columns; disable it when no row needs it"
            )
        if not has_fields:
            raise KeyStateError(
                f"no field is registered for the index keyring {name!r}, so nobody would know which rows to fill; "
                "`km.register_field(field, url)` registers one"
            )
        row = await self._add(before)
        telemetry.rotation("ok")
        await self._live.refresh()
        return row

    async def _add(self, before: _Ring) -> KeyRecord:
        """Insert the next version, wrapped before the transaction; ``ConflictError`` when somebody was faster."""
        record = before.record
        skip = (record.next_version - before.active.version + 1) % 2
        row = self._s.new_row(record, record.next_version + skip)
        wrap_ring = await self._live.sealing_ring(record.wrap_keyring)
        row = seal_key(wrap_ring, self._live.store_id, row, self._s.random(WRAP_KEY_SIZE))
        async with self._s.store.transaction() as work:
            now = await _look(work, record.name, lock=True)
            if (now.active.id, now.waiting) != (before.active.id, None):
                raise ConflictError("another process rotated this index keyring first")
            if await work.take_version(record.name, skip=skip) != row.version:
                raise ConflictError("another process made a version of this index keyring at the same moment")
            row = replace(row, published_epoch=await work.bump_epoch())
            await require_usable_wrap(work, row.wrapped_by)
            await self._s.audit.record(work, AuditEvent("key.rotate", record.name, row.id, {"version": row.version}))
            await work.add_key(row)
        return row

    async def _disable(self, work: UnitOfWork, row: KeyRecord) -> KeyRecord:
        """Take a version out of every process that loads it: no state but these steps leads to disabled."""
        epoch = await work.bump_epoch()
        if row.state is not DataKeyState.DECRYPT_ONLY:
            row = await work.change_key(row.id, row.state, state=DataKeyState.DECRYPT_ONLY, published_epoch=epoch)
        row = await work.change_key(row.id, row.state, state=DataKeyState.DISABLED, published_epoch=epoch)
        await self._s.audit.record(work, AuditEvent("key.disable", row.keyring, row.id, {"version": row.version}))
        return row


async def _look(work: UnitOfWork, name: str, *, lock: bool = False) -> _Ring:
    record = await work.find_keyring(name, lock=lock)
    if name == HASH_KEYRING:
        raise KeyStateError(
            f"keyring {name!r} belongs to hash_field, whose values lie where nobody knows: it is never rotated"
        )
    if record is None:
        raise KeyNotFoundError(f"no index keyring {name!r} in this store; loading a field with an index makes it")
    if record.purpose is not KeyringPurpose.INDEX:
        raise KeyStateError(
            f"keyring {name!r} is of purpose {record.purpose}; `keystead key rotate {shlex.quote(name)}` rotates it"
        )
    if (await work.state(lock=lock)).restored:
        raise StoreRestoredError
    rows = sorted(await work.keys(keyring=name, states=_LIVE), key=lambda row: row.version)
    active = [row for row in rows if row.state is DataKeyState.ACTIVE]
    waiting = [row for row in rows if row.state is DataKeyState.PRE_ACTIVE]
    if not active:
        raise KeyStateError(f"index keyring {name!r} has no active version; loading a field with an index makes one")
    others = [row for row in rows if row.id not in {active[0].id, *(row.id for row in waiting[-1:])}]
    return _Ring(record, active[0], waiting[-1] if waiting else None, others)
