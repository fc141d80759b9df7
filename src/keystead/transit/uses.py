"""What was done with keys, for the audit trail: counted for each key, caller and minute, or each use by itself."""

from __future__ import annotations

from collections import Counter
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from keystead.ledger.audit.actor import audit_actor
from keystead.ledger.audit.trail import Trail
from keystead.lifecycle.surroundings import NoAudit, Surroundings
from keystead.model import utc_text
from keystead.ports import AuditEvent, Detail, TransitKeyRecord

MOST: Final = 10_000
"""Counts that are kept in memory; more are written at once."""
_MINUTE_S: Final = 60


@dataclass(frozen=True, slots=True)
class _Place:
    minute: int
    keyring: str
    name: str
    tenant: str
    actor: str


class Uses:
    """Counts of one process. They are lost with it, a minute's worth at most."""

    def __init__(self, surroundings: Surroundings) -> None:
        self._s = surroundings
        self._counts: dict[_Place, Counter[str]] = {}

    def note(self, record: TransitKeyRecord, operation: str, actor: str, count: int) -> None:
        """Count uses of a key by somebody."""
        if not self._is_kept:
            return
        minute = int(self._s.clock.now().timestamp()) // _MINUTE_S
        place = _Place(minute, record.keyring, record.name, record.tenant, actor)
        counts = self._counts.get(place)
        if counts is None:
            counts = self._counts[place] = Counter()
        counts[operation] += count

    @property
    def _is_kept(self) -> bool:
        trail = self._s.audit
        return trail.is_on if isinstance(trail, Trail) else not isinstance(trail, NoAudit)

    @property
    def is_full(self) -> bool:
        """Whether so much was counted that it is to be written before its minute is over."""
        return len(self._counts) > MOST

    async def record(self, record: TransitKeyRecord, operation: str, actor: str | None = None, count: int = 1) -> None:
        """Write one use by itself, before its result is told.

        Args:
            actor: on whose behalf; None for whoever it is said to be already.

        Raises:
            KMSError: it cannot be written, and so the result must not be told.
        """
        details: dict[str, Detail] = {**_named(record.name, record.tenant), "count": count}
        async with self._s.store.transaction() as work:
            with nullcontext() if actor is None else audit_actor(actor):
                event = AuditEvent(f"transit.{operation}", record.keyring, details=details)
                await self._s.audit.record(work, event)

    async def flush(self, *, everything: bool = False) -> None:
        """Write the counts of minutes that are over, or all.

        Raises:
            KMSError: they could not be written; they stay.
        """
        now = int(self._s.clock.now().timestamp()) // _MINUTE_S
        ready = [place for place in self._counts if everything or self.is_full or place.minute < now]
        if not ready:
            return
        taken = {place: self._counts.pop(place) for place in ready}
        try:
            async with self._s.store.transaction() as work:
                for place, counts in taken.items():
                    with audit_actor(place.actor):
                        await self._s.audit.record(work, _event(place, counts))
        except BaseException:
            for place, counts in taken.items():
                self._counts.setdefault(place, Counter()).update(counts)
            raise


def _event(place: _Place, counts: Counter[str]) -> AuditEvent:
    minute = utc_text(datetime.fromtimestamp(place.minute * _MINUTE_S, UTC))
    details: dict[str, Detail] = {**_named(place.name, place.tenant), "minute": minute, **counts}
    return AuditEvent("transit.use", place.keyring, details=details)


def _named(name: str, tenant: str) -> dict[str, Detail]:
    return {"name": name, **({"tenant": tenant} if tenant else {})}
