"""Rewrap: the same keys under a newer WRAP version, a newer KEK version, or another KEK. Data is not touched.

Resumable without a record of progress: what is left to do is what still names the old key. Each row is changed on
its own, by one statement that holds only if the row is as it was read.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from keystead.errors import ConflictError, KeyNotFoundError
from keystead.lifecycle.live_keyrings import LiveKeyrings
from keystead.lifecycle.rotation import Rotation
from keystead.lifecycle.wrapping import open_key, seal_key
from keystead.model import WRAP_KEYRING, DataKeyState, KeyRecord
from keystead.ports import AuditEvent, DescribesKeys

BATCH: Final = 200
WRAPPED_STATES: Final = frozenset(set(DataKeyState) - {DataKeyState.DESTROYED})


@dataclass(frozen=True, slots=True)
class RewrapReport:
    """How many data keys and WRAP keys were moved, and how many another process changed meanwhile."""

    data_keys: int = 0
    wrap_keys: int = 0
    skipped: int = 0


class Rewrap:
    """Moves wrapped keys to newer wrapping keys."""

    def __init__(self, live: LiveKeyrings, rotation: Rotation) -> None:
        self._live = live
        self._s = live.surroundings
        self._rotation = rotation

    async def run(self, *, new_wrap_version: bool = True, wrap_keyring: str = WRAP_KEYRING) -> RewrapReport:
        """Bring every WRAP row under the configured KEK's newest version, and every data key under the newest WRAP.

        Args:
            new_wrap_version: make a new WRAP version first, wrapped by the configured KEK.
            wrap_keyring: the WRAP keyring whose keys are moved.
        """
        if new_wrap_version:
            await self._rotation.rotate(wrap_keyring, promote="now")
        wrap_keys, skipped_wraps = await self.wrap_rows(wrap_keyring)
        data_keys, skipped = await self.data_rows(wrap_keyring)
        return RewrapReport(data_keys, wrap_keys, skipped + skipped_wraps)

    async def data_rows(self, wrap_keyring: str = WRAP_KEYRING) -> tuple[int, int]:
        """Move every data key that an older WRAP version wraps; return how many were moved and skipped."""
        ring = await self._live.sealing_ring(wrap_keyring)
        target = ring.snapshot.active
        if target is None:
            raise KeyNotFoundError(f"WRAP keyring {wrap_keyring!r} has no active version; rotate it first")
        moved = skipped = after = 0
        while True:
            async with self._s.store.reading() as work:
                rows = await work.keys(states=WRAPPED_STATES, wrapped_by_not=(target,), after_id=after, limit=BATCH)
            if not rows:
                return moved, skipped
            after = rows[-1].id
            for row in rows:
                done = await self._move_data_row(row, wrap_keyring)
                moved += done is True
                skipped += done is False

    async def _move_data_row(self, row: KeyRecord, wrap_keyring: str) -> bool | None:
        """Move one row: True when moved, False when it changed meanwhile, None when another WRAP keyring's."""
        async with self._s.store.reading() as work:
            keyring = await work.find_keyring(row.keyring)
        if keyring is None or keyring.wrap_keyring != wrap_keyring:
            return None
        ring = await self._live.wrap_ring(wrap_keyring)
        await self._live.ensure_wrap_key(ring, row)
        sealed = seal_key(ring, self._live.store_id, row, open_key(ring, self._live.store_id, row))
        return await self._write(row, wrapped_key=sealed.wrapped_key, wrapped_by=sealed.wrapped_by)

    async def wrap_rows(self, wrap_keyring: str = WRAP_KEYRING) -> tuple[int, int]:
        """Move every WRAP version that another KEK, or an older version of ours, wraps."""
        provider = self._s.wrapper.provider(self._s.kek.provider)
        answered = self._s.kek.key_id
        newest: str | None = None
        if isinstance(provider, DescribesKeys):
            description = await provider.describe(self._s.kek.key_id)
            answered, newest = description.key_reference.key_id, description.current_version
        moved = skipped = 0
        async with self._s.store.reading() as work:
            rows = await work.keys(keyring=wrap_keyring, states=WRAPPED_STATES)
        for row in rows:
            same_key = (row.kek_provider, row.kek_key_id) == (self._s.kek.provider, answered)
            if same_key and newest in (None, row.kek_version):
                continue
            sealed = await self._s.wrapper.rewrap(self._live.store_id, row, self._s.kek, same_key=same_key)
            if await self._write(
                row,
                wrapped_key=sealed.wrapped_key,
                kek_provider=sealed.kek_provider,
                kek_key_id=sealed.kek_key_id,
                kek_version=sealed.kek_version,
                kek_algorithm=sealed.kek_algorithm,
            ):
                moved += 1
            else:
                skipped += 1
        return moved, skipped

    async def _write(self, row: KeyRecord, **columns: object) -> bool:
        try:
            async with self._s.store.transaction() as work:
                current = await work.find_key(row.id)
                if current is None or current.wrapped_key != row.wrapped_key:
                    return False
                await self._s.audit.record(work, AuditEvent("key.rewrap", row.keyring, row.id))
                epoch = await work.bump_epoch()
                await work.change_key(row.id, current.state, published_epoch=epoch, **columns)
        except ConflictError:
            return False
        return True
