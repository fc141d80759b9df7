"""Rotate and promote: a new version is added, never put in an old one's place.

A new version is pre-active, readable and not writing, until every other live node has loaded the epoch it came with;
alone in the store it is active at once. A node's heartbeat ends two poll intervals after its last poll, so a node
that died delays a promotion by no more than that.
"""

from __future__ import annotations

import shlex
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final, TypeAlias

from keystead import telemetry
from keystead.errors import (
    ConflictError,
    InvalidInputError,
    KeyRotationError,
    KeyStateError,
    KMSError,
    StorageOperationError,
    StoreRestoredError,
)
from keystead.lifecycle.algorithms import LEGACY_ALGORITHM
from keystead.lifecycle.creation import (
    NewKey,
    get_keyring,
    not_restored_error,
    require_usable_wrap,
    require_writable,
)
from keystead.lifecycle.live_keyrings import LiveKeyrings
from keystead.lifecycle.surroundings import Surroundings
from keystead.lifecycle.wrap_keyrings import retry_conflicts
from keystead.lifecycle.wrapping import seal_key
from keystead.model import DataKeyState, KeyRecord, KeyringPurpose, KeyringRecord
from keystead.ports import AuditEvent, UnitOfWork

ATTEMPTS: Final = 64
WAITING: Final = frozenset({DataKeyState.PRE_ACTIVE})
Guard: TypeAlias = Callable[[UnitOfWork], Awaitable[object]]
"""What a transaction does besides, or why it must not be."""


@dataclass(frozen=True, slots=True)
class _Before:
    """What the store said of a keyring before a rotation of it."""

    keyring: KeyringRecord
    active: KeyRecord | None
    waiting: KeyRecord | None
    restored: bool


class Rotation:
    """Rotates and promotes the versions of keyrings."""

    def __init__(self, live: LiveKeyrings) -> None:
        self._live = live
        self._s: Surroundings = live.surroundings

    async def rotate(
        self,
        name: str,
        *,
        observed: int | None = None,
        promote: str = "auto",
        min_age: timedelta | None = None,
        during_recovery: bool = False,
        skip_versions: int = 0,
        guard: Guard | None = None,
    ) -> KeyRecord:
        """Return the version that replaces the active one; the winner's, where another process rotated first.

        Args:
            observed: the version the caller saw active; when the store is past it, that newer version is returned.
            promote: ``"now"`` makes the new version active at once, although a node may not have loaded it;
                ``"auto"`` waits for the live nodes.
            min_age: leave an active version younger than this alone.
            during_recovery: on a restored store, and on no other.
            skip_versions: version numbers to leave out, because they may have been used before a restore.
            guard: what else the transaction does that adds the version; it is not called where none is added, and
                what it raises keeps the version from being added.

        Raises:
            KeyNotFoundError: no such keyring.
            KeyStateError: the keyring holds imported keys, or index keys (see ``IndexRotation``).
            StoreRestoredError: the store must be recovered first.
            InvalidInputError: a recovery finds the store recovered by somebody else.
            KeyRotationError: the KMS failed, or the processes rotating at the same time never let this one through.
        """
        if promote not in ("auto", "now"):
            raise InvalidInputError('promote must be "auto" or "now"')
        for _ in range(ATTEMPTS):
            before = await self._look(name)
            if before.restored and not during_recovery:
                raise StoreRestoredError
            if during_recovery and not before.restored:
                raise not_restored_error()
            winner = _adopted(before, observed, self._s.clock.now() - min_age if min_age else None, skip_versions)
            if observed is None and before.active is not None:
                # From here on somebody else's version will do.
                observed = before.active.version
            try:
                if winner is None:
                    key = await self._new_key(before.keyring)
                    row = await self._add_version(
                        before,
                        key,
                        now=promote == "now",
                        skip=skip_versions,
                        during_recovery=during_recovery,
                        guard=guard,
                    )
                elif winner.state is DataKeyState.PRE_ACTIVE:
                    promoted = await self.promote(name, force=promote == "now")
                    if promoted is not None:
                        return promoted
                    continue
                else:
                    telemetry.rotation("adopted")
                    await self._live.refresh()
                    return winner
            except ConflictError:
                continue
            telemetry.rotation("ok")
            await self._live.refresh()
            return row
        raise KeyRotationError(f"keyring {name!r} was being rotated by too many processes at once; try again")

    async def add(self, name: str, key: NewKey, guard: Guard) -> KeyRecord:
        """Return a new active version made of a given key; nobody else's will do. Errors as ``rotate``.

        Raises:
            ConflictError: the keyring was rotated too often meanwhile.
        """

        async def added() -> KeyRecord:
            before = await self._look(name)
            if before.restored:
                raise StoreRestoredError
            return await self._add_version(before, key, now=True, guard=guard)

        row = await retry_conflicts(added)
        await self._live.refresh()
        return row

    async def promote(self, name: str, *, force: bool = False) -> KeyRecord | None:
        """Make the pre-active version active if every other live node has loaded it, or if ``force``; return it.

        Returns None when nothing is waiting, and the row still pre-active when a node has yet to see it.

        Raises:
            KeyStateError: the keyring holds index keys.
            StoreRestoredError: the store must be recovered first.
        """
        async with self._s.store.transaction() as work:
            keyring = await work.find_keyring(name, lock=True)
            if keyring is None:
                return None
            await require_writable(work)
            _refuse_index_keys(keyring)
            waiting = await work.keys(keyring=name, states=WAITING)
            if not waiting:
                return None
            newest = max(waiting, key=lambda row: row.version)
            active = await work.find_active(name)
            if not (force or await self.may_replace(work, newest, active)):
                return newest
            await self._make_room(work, [*waiting, *([active] if active else [])], newest.id)
            row = await make_active(self._s, work, keyring, newest)
        await self._live.refresh()
        return row

    async def _look(self, name: str) -> _Before:
        async with self._s.store.reading() as work:
            keyring = await get_keyring(work, name)
            _refuse_index_keys(keyring)
            if keyring.algorithm == LEGACY_ALGORITHM:
                raise KeyStateError(f"keyring {name!r} holds imported keys, which only decrypt: it is never rotated")
            waiting = await work.keys(keyring=name, states=WAITING)
            return _Before(
                keyring,
                await work.find_active(name),
                max(waiting, key=lambda row: row.version, default=None),
                (await work.state()).restored,
            )

    async def _add_version(
        self,
        before: _Before,
        key: NewKey | None,
        *,
        now: bool,
        skip: int = 0,
        during_recovery: bool = False,
        guard: Guard | None = None,
    ) -> KeyRecord:
        """Insert the next version, wrapped before the transaction; ``ConflictError`` when somebody was faster.

        ``key`` is None where the KMS draws it, as it wraps it.
        """
        keyring = before.keyring
        row = self._s.new_row(keyring, keyring.next_version + skip, None if key is None else key.context)
        row = await self._wrapped(keyring, row, key)
        async with self._s.store.transaction() as work:
            locked = await work.find_keyring(keyring.name, lock=True)
            active = await work.find_active(keyring.name)
            if (
                locked is None
                or locked.next_version != keyring.next_version
                or (active and active.id) != (before.active and before.active.id)
                or await work.take_version(keyring.name, skip=skip) != row.version
            ):
                raise ConflictError("another process rotated this keyring first")
            row = replace(row, published_epoch=await work.bump_epoch())
            if (await work.state()).restored != during_recovery:
                raise ConflictError("the store was restored, or recovered, while this version was made")
            await require_usable_wrap(work, row.wrapped_by)
            if guard is not None:
                await guard(work)
            await self._s.audit.record(work, AuditEvent("key.rotate", keyring.name, row.id, {"version": row.version}))
            if now or await self.may_replace(work, row, active):
                waiting = await work.keys(keyring=keyring.name, states=WAITING)
                await self._make_room(work, [*waiting, *([active] if active else [])], row.id)
                row = self._s.activation(keyring).of(row)
            await work.add_key(row)
        return row

    async def _new_key(self, keyring: KeyringRecord) -> NewKey | None:
        return None if keyring.purpose is KeyringPurpose.WRAP else NewKey(await self._s.new_key(keyring))

    async def _wrapped(self, keyring: KeyringRecord, row: KeyRecord, key: NewKey | None) -> KeyRecord:
        """Return ``row`` with a new key in it; whatever the KMS says against it is a failed rotation."""
        try:
            if key is None:
                return (await self._s.wrapper.draw(self._live.store_id, row, self._s.kek))[0]
            ring = await self._live.sealing_ring(keyring.wrap_keyring)
            return seal_key(ring, self._live.store_id, row, key.key)
        except StorageOperationError:
            raise
        except KMSError as exc:
            raise KeyRotationError(
                f"keyring {keyring.name!r} was not rotated, the old version stays active: {exc}"
            ) from exc

    async def may_replace(self, work: UnitOfWork, row: KeyRecord, active: KeyRecord | None) -> bool:
        """Whether no other live node would meet ``row``'s id unprepared, or nothing could encrypt otherwise.

        Args:
            active: what encrypts until then.
        """
        if active is None or (active.expires_at is not None and active.expires_at <= self._s.clock.now()):
            return True
        return all(node.seen_epoch >= row.published_epoch for node in await self._s.other_nodes(work))

    async def _make_room(self, work: UnitOfWork, rows: list[KeyRecord], successor: int) -> None:
        """Make every version but ``successor`` decrypt-only: the active one, and any left waiting before it."""
        for row in rows:
            if row.id != successor:
                epoch = await work.bump_epoch()
                await work.change_key(row.id, row.state, state=DataKeyState.DECRYPT_ONLY, published_epoch=epoch)


async def make_active(s: Surroundings, work: UnitOfWork, keyring: KeyringRecord, waiting: KeyRecord) -> KeyRecord:
    """Make a pre-active version the active one; whoever calls has taken the one before out of that state."""
    row = await work.change_key(
        waiting.id,
        DataKeyState.PRE_ACTIVE,
        state=DataKeyState.ACTIVE,
        published_epoch=await work.bump_epoch(),
        **s.activation(keyring)._asdict(),
    )
    await s.audit.record(work, AuditEvent("key.promote", keyring.name, row.id, {"version": row.version}))
    return row


def _refuse_index_keys(keyring: KeyringRecord) -> None:
    if keyring.purpose is KeyringPurpose.INDEX:
        raise KeyStateError(
            f"keyring {keyring.name!r} holds index keys, and every row has to be hashed again before one replaces "
            f"another: `km.rotate_index_key({keyring.name!r})`, or `keystead key rotate-index "
            f"{shlex.quote(keyring.name)}`, begins that"
        )


def _adopted(before: _Before, observed: int | None, not_after: datetime | None, skip: int) -> KeyRecord | None:
    """Return the version that makes a rotation needless: a winner's, one still waiting, or one too young."""
    active = before.active
    if skip:
        return None
    if before.waiting is not None:
        return before.waiting
    if active is None:
        return None
    if observed is not None and active.version > observed:
        return active
    if not_after is not None and active.created_at > not_after:
        return active
    return None
