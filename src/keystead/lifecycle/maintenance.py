"""What must be done from time to time. Each step stands alone: one that fails does not stop the others."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from keystead import telemetry
from keystead.errors import ConflictError, KeyRotationError, KMSError
from keystead.lifecycle.destruction import Destruction
from keystead.lifecycle.key_pages import all_keys
from keystead.lifecycle.live_keyrings import LiveKeyrings
from keystead.lifecycle.rewrap import Rewrap
from keystead.lifecycle.rotation import Rotation
from keystead.lifecycle.surroundings import ROTATION_FRACTION
from keystead.model import DataKeyState, KeyRecord, KeyringPurpose, is_of_transit

log = logging.getLogger("keystead.lifecycle")


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
            except Exception as exc:
                failures[name] = exc.code if isinstance(exc, KMSError) else "unexpected"
                log.warning("maintenance step failed: %s: %s", name, failures[name], exc_info=True)
        return MaintenanceReport(**done, failures=failures)

    async def rotate_due(self) -> int:
        """Rotate every keyring whose active version is due by age, messages or bytes; return how many.

        Raises:
            KeyRotationError: at least one could not be rotated; the others were.
        """
        if self._live.state is None or self._live.state.restored:
            return 0
        rotated, failed = 0, []
        for row in await self._due():
            try:
                new = await self._rotation.rotate(row.keyring, observed=row.version)
                rotated += new.version > row.version
            except KMSError as exc:
                telemetry.rotation(exc.code)
                failed.append((row.keyring, exc.code))
        if failed:
            told = ", ".join(f"{name!r} ({code})" for name, code in failed[:5])
            raise KeyRotationError(f"{len(failed)} keyring(s) could not be rotated: {told}; the old versions stay")
        return rotated

    def uses_ratio(self, row: KeyRecord) -> float | None:
        """Return how much of the policy's messages or bytes a version has used up, 1.0 for all; None: no limit."""
        limits = [(row.messages, self._s.policy.max_messages), (row.bytes, self._s.policy.max_bytes)]
        return max((used / most for used, most in limits if most is not None), default=None)

    async def promote_waiting(self) -> int:
        """Promote every pre-active version that all live nodes have loaded; return how many.

        Not those of index keyrings, which wait for their rows to be filled.
        """
        if self._live.state is None or self._live.state.restored:
            return 0
        promoted = 0
        async with self._s.store.reading() as work:
            waiting = await all_keys(work, states={DataKeyState.PRE_ACTIVE})
        for row in waiting:
            if row.purpose is KeyringPurpose.INDEX:
                continue
            with contextlib.suppress(ConflictError):
                done = await self._rotation.promote(row.keyring)
                promoted += done is not None and done.state is DataKeyState.ACTIVE
        return promoted

    async def rewrap_stale(self) -> int:
        """Move what older WRAP and KEK versions wrap under the newest; return how many rows.

        Raises:
            KMSError: something could not be moved; the rest was.
        """
        moved, failure = 0, None
        for name in await self._rewrap.wrap_keyrings():
            for step in (self._rewrap.wrap_rows, self._rewrap.data_rows):
                try:
                    moved += (await step(name))[0]
                except KMSError as exc:
                    failure = exc
        await self._live.refresh()
        if failure is not None:
            raise failure
        return moved

    async def _destroy_due(self) -> int:
        return len(await self._destruction.run_due())

    async def _drop_expired(self) -> int:
        async with self._s.store.transaction() as work:
            return await work.drop_expired()

    async def _due(self) -> list[KeyRecord]:
        """Return the active versions due by age, and by use where the policy limits it."""
        policy = self._s.policy
        active = {DataKeyState.ACTIVE}
        limits_use = policy.enabled and (policy.max_messages is not None or policy.max_bytes is not None)
        async with self._s.store.reading() as work:
            due = await all_keys(work, states=active, due_before=self._s.clock.now())
            used_up = await all_keys(work, states=active, only=self._is_used_up) if limits_use else []
        by_id = {row.id: row for row in [*due, *used_up]}
        return [
            row for row in by_id.values() if row.purpose is KeyringPurpose.ENCRYPT and not is_of_transit(row.keyring)
        ]

    def _is_used_up(self, row: KeyRecord) -> bool:
        return (self.uses_ratio(row) or 0.0) >= ROTATION_FRACTION
