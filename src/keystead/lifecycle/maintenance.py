"""What must be done from time to time. Each step stands alone: one that fails does not stop the others."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Final

from keystead import telemetry
from keystead.errors import KeyRotationError, KMSError
from keystead.lifecycle.destruction import Destruction
from keystead.lifecycle.live_keyrings import LiveKeyrings
from keystead.lifecycle.rewrap import Rewrap
from keystead.lifecycle.rotation import Rotation
from keystead.lifecycle.surroundings import ROTATION_FRACTION
from keystead.model import DataKeyState, KeyRecord, KeyringPurpose
from keystead.ports import UnitOfWork

log = logging.getLogger("keystead.lifecycle")
PAGE: Final = 1000
IN_USE: Final = frozenset({DataKeyState.ACTIVE, DataKeyState.PRE_ACTIVE})


@dataclass(frozen=True, slots=True)
class MaintenanceReport:
    """What a run did, and the error code of each step that failed."""

    rotated: int = 0
    promoted: int = 0
    destroyed: int = 0
    rewrapped: int = 0
    expired_leases: int = 0
    failures: dict[str, str] = field(default_factory=dict)


class Maintenance:
    """Overdue rotations, promotions, due destructions, stale wrappings, expired leases."""

    def __init__(self, live: LiveKeyrings, rotation: Rotation, destruction: Destruction, rewrap: Rewrap) -> None:
        self._live = live
        self._s = live.surroundings
        self._rotation = rotation
        self._destruction = destruction
        self._rewrap = rewrap

    async def run(self) -> MaintenanceReport:
        """Do every step; a failing one is in the report's ``failures``."""
        failures: dict[str, str] = {}
        steps: dict[str, Callable[[], Awaitable[int]]] = {
            "rotated": self.rotate_due,
            "promoted": self.promote_waiting,
            "destroyed": self._destroy_due,
            "rewrapped": self.rewrap_stale,
            "expired_leases": self._drop_expired,
        }
        done: dict[str, int] = {}
        for name, step in steps.items():
            try:
                done[name] = await step()
            except KMSError as exc:
                log.warning("maintenance step failed: %s: %s", name, exc.code, exc_info=True)
                failures[name] = exc.code
        return MaintenanceReport(**done, failures=failures)

    async def rotate_due(self) -> int:
        """Rotate every keyring whose active version is due by age, messages or bytes; return how many.

        Raises:
            KeyRotationError: at least one could not be rotated; the others were.
        """
        if self._live.state is None or self._live.state.restored:
            return 0
        rotated, failed = 0, []
        for row in await self._in_use():
            if row.state is not DataKeyState.ACTIVE or row.purpose is not KeyringPurpose.ENCRYPT:
                continue
            telemetry.data_key_age(row.keyring, (self._s.clock.now() - row.created_at).total_seconds())
            if not self.is_due(row):
                continue
            try:
                new = await self._rotation.rotate(row.keyring, observed=row.version)
                rotated += new.version > row.version
            except KMSError as exc:
                telemetry.rotation("failure")
                failed.append((row.keyring, exc.code))
        if failed:
            told = ", ".join(f"{name!r} ({code})" for name, code in failed[:5])
            raise KeyRotationError(f"{len(failed)} keyring(s) could not be rotated: {told}; the old versions stay")
        return rotated

    def is_due(self, row: KeyRecord) -> bool:
        """Whether an active version has reached 80 % of its age, messages or bytes."""
        policy = self._s.policy
        if row.rotate_after is not None and row.rotate_after <= self._s.clock.now():
            return True
        limits = [(row.messages, policy.max_messages), (row.bytes, policy.max_bytes)]
        return policy.enabled and any(most is not None and used >= most * ROTATION_FRACTION for used, most in limits)

    async def promote_waiting(self) -> int:
        """Promote every pre-active version that all live nodes have loaded; return how many."""
        promoted = 0
        for row in await self._in_use():
            if row.state is DataKeyState.PRE_ACTIVE:
                done = await self._rotation.promote(row.keyring)
                promoted += done is not None and done.state is DataKeyState.ACTIVE
        return promoted

    async def rewrap_stale(self) -> int:
        """Move what older WRAP and KEK versions wrap under the newest; return how many rows."""
        wraps, _ = await self._rewrap.wrap_rows()
        data, _ = await self._rewrap.data_rows()
        return wraps + data

    async def next_rotation(self) -> timedelta | None:
        """Return how long until the first active version is due, or None."""
        due = [row.rotate_after for row in await self._in_use() if row.rotate_after is not None]
        return min(due) - self._s.clock.now() if due else None

    async def _destroy_due(self) -> int:
        return len(await self._destruction.run_due())

    async def _drop_expired(self) -> int:
        async with self._s.store.transaction() as work:
            return await work.drop_expired()

    async def _in_use(self) -> list[KeyRecord]:
        async with self._s.store.reading() as work:
            return await _pages(work)


async def _pages(work: UnitOfWork) -> list[KeyRecord]:
    rows: list[KeyRecord] = []
    while True:
        page = await work.keys(states=IN_USE, after_id=rows[-1].id if rows else 0, limit=PAGE)
        rows += page
        if len(page) < PAGE:
            return rows
