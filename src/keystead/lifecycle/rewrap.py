"""Rewrap: the same keys under a newer WRAP version, a newer KEK version, or another KEK. Data is not touched.

Resumable without a record of progress: what is left to do is what still names the old key. Each row is changed on
its own, by one statement that holds only if the row is as it was read.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Final

from keystead.crypto.keyring import Keyring
from keystead.errors import ConflictError, KeyNotFoundError, KMSError
from keystead.lifecycle.creation import require_usable_wrap
from keystead.lifecycle.kek_rotation import require_settled, rotate_kek
from keystead.lifecycle.live_keyrings import LiveKeyrings
from keystead.lifecycle.rotation import Rotation
from keystead.lifecycle.wrapping import open_key, seal_key
from keystead.model import WRAP_KEYRING, DataKeyState, KeyRecord, KeyringPurpose
from keystead.ports import AuditEvent, DescribesKeys, KeepsWraps

log = logging.getLogger("keystead.lifecycle")

BATCH: Final = 200
WRAPPED_STATES: Final = frozenset(set(DataKeyState) - {DataKeyState.DESTROYED})
_WRAPPING: Final = ("wrapped_key", "wrapped_by", "kek_provider", "kek_key_id", "kek_version", "kek_algorithm")


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

    async def run(
        self, *, new_kek_version: bool = False, new_wrap_version: bool = True, wrap_keyring: str = WRAP_KEYRING
    ) -> RewrapReport:
        """Bring every WRAP row under the configured KEK's newest version, and every data key under the newest WRAP.

        Args:
            new_kek_version: have the KMS make a new version of the KEK before anything else.
            new_wrap_version: make a new WRAP version first, wrapped by the configured KEK.
            wrap_keyring: the WRAP keyring whose keys are moved.

        Raises:
            RotationNotSupportedError: a new KEK version was asked for, and the service makes none on request.
            ConflictError: a new KEK version was asked for, and another process does not finish making one.
        """
        if new_kek_version:
            await rotate_kek(self._s)
        if new_wrap_version:
            await self._rotation.rotate(wrap_keyring, promote="now")
        failure: KMSError | None = None
        try:
            wrap_keys, skipped_wraps = await self.wrap_rows(wrap_keyring)
        except KMSError as exc:
            # An old WRAP key that cannot be moved keeps no data key from moving to the new one.
            failure = exc
        data_keys, skipped = await self.data_rows(wrap_keyring)
        await self._live.refresh()
        if failure is not None:
            raise failure
        return RewrapReport(data_keys, wrap_keys, skipped + skipped_wraps)

    async def data_rows(self, wrap_keyring: str = WRAP_KEYRING) -> tuple[int, int]:
        """Move every data key that an older WRAP version wraps; return how many were moved and skipped.

        Raises:
            KMSError: one of them could not be moved; the others were.
        """
        ring = await self._live.sealing_ring(wrap_keyring)
        target = ring.snapshot.active
        if target is None:
            raise KeyNotFoundError(f"WRAP keyring {wrap_keyring!r} has no active version; rotate it first")
        moved = skipped = 0
        failure: KMSError | None = None
        async for row in self._wrapped_otherwise(wrap_keyring, target):
            try:
                if await self._move_data_row(ring, row):
                    moved += 1
                else:
                    skipped += 1
            except KMSError as exc:
                failure = _noted(row, exc)
        if failure is not None:
            raise failure
        return moved, skipped

    async def _wrapped_otherwise(self, wrap_keyring: str, target: int) -> AsyncIterator[KeyRecord]:
        """Yield what the versions of a WRAP keyring wrap, all but ``target``."""
        async with self._s.store.reading() as work:
            versions = await work.keys(keyring=wrap_keyring, states=WRAPPED_STATES)
        for version in versions:
            after = 0
            while version.id != target:
                async with self._s.store.reading() as work:
                    page = await work.keys(wrapped_by=version.id, states=WRAPPED_STATES, after_id=after, limit=BATCH)
                if not page:
                    break
                after = page[-1].id
                for row in page:
                    yield row

    async def _move_data_row(self, ring: Keyring, row: KeyRecord) -> bool:
        """Move one row; False when it changed meanwhile."""
        await self._live.ensure_wrap_key(ring, row)
        sealed = seal_key(ring, self._live.store_id, row, open_key(ring, self._live.store_id, row))
        return await self._write(row, sealed)

    async def wrap_keyrings(self) -> list[str]:
        """Return the names of the store's WRAP keyrings."""
        names: list[str] = []
        after = ""
        async with self._s.store.reading() as work:
            while page := await work.keyrings(after=after):
                names += [keyring.name for keyring in page if keyring.purpose is KeyringPurpose.WRAP]
                after = page[-1].name
        return names

    async def wrap_rows(self, wrap_keyring: str = WRAP_KEYRING) -> tuple[int, int]:
        """Move every WRAP version that another KEK, or an older version of ours, wraps; mend those under several KEKs.

        Raises:
            KMSError: the KMS could not be asked, or one of them could not be moved; the others were.
            KeyRotationError: the last rotation of the KEK did not come to a clear end.
        """
        newest = await self._newest()
        moved = skipped = 0
        failure: KMSError | None = None
        async with self._s.store.reading() as work:
            rows = await work.keys(keyring=wrap_keyring, states=WRAPPED_STATES)
        for row in rows:
            try:
                done = await self._move_wrap_row(row, newest)
            except KMSError as exc:
                failure = _noted(row, exc)
                continue
            moved += done is True
            skipped += done is False
        if failure is not None:
            raise failure
        return moved, skipped

    async def _newest(self) -> tuple[str, str | None]:
        """Return id and newest version of the configured KEK, in the words of its service where that tells them."""
        kek = self._s.kek
        provider = self._s.wrapper.provider(kek.provider)
        if isinstance(provider, KeepsWraps) or not isinstance(provider, DescribesKeys):
            return kek.key_id, None
        description = await provider.describe(kek.key_id)
        return description.key_reference.key_id, description.current_version

    async def _move_wrap_row(self, row: KeyRecord, newest: tuple[str, str | None]) -> bool | None:
        """Move one row: None when it was as it should be, False when it changed meanwhile."""
        wrapper, kek = self._s.wrapper, self._s.kek
        answered, version = newest
        same_key = (row.kek_provider, row.kek_key_id) == (kek.provider, answered)
        if row.kek_provider == kek.provider and wrapper.keeper(row) is not None:
            states = await wrapper.check_wraps(self._live.store_id, row, key_id=kek.key_id)
            if not any(state.is_mended_by_rewrap for state in states.values()):
                return None
        elif same_key and version in (None, row.kek_version):
            return None
        await require_settled(self._s)
        sealed = await wrapper.rewrap(self._live.store_id, row, kek, same_key=same_key)
        return await self._write(row, sealed)

    async def _write(self, row: KeyRecord, sealed: KeyRecord) -> bool:
        columns = {name: getattr(sealed, name) for name in _WRAPPING}
        try:
            async with self._s.store.transaction() as work:
                # From here on nobody else changes a key before this transaction ends.
                epoch = await work.bump_epoch()
                current = await work.find_key(row.id)
                if current is None or current.wrapped_key != row.wrapped_key:
                    raise ConflictError("another process changed this key first")
                await require_usable_wrap(work, sealed.wrapped_by)
                await self._s.audit.record(work, AuditEvent("key.rewrap", row.keyring, row.id))
                await work.change_key(row.id, current.state, published_epoch=epoch, **columns)
        except ConflictError:
            return False
        return True


def _noted(row: KeyRecord, failure: KMSError) -> KMSError:
    log.warning("a key was not rewrapped: %s", failure.code, extra={"data_key_id": row.id})
    return failure
