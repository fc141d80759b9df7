"""How a store's audit trail stands, from its rows alone."""

from __future__ import annotations

from dataclasses import dataclass

from keystead.ledger.audit.chain import TrailState
from keystead.ledger.audit.entries import Entry, split_payload
from keystead.ledger.audit.sequencer import LEASE
from keystead.ledger.format.records import parse_line
from keystead.ports import AuditFilter, AuditLogRow, KeyStore


@dataclass(frozen=True, slots=True)
class AuditStatus:
    """How a trail stands. ``waiting`` entries are not sealed yet; ages are in seconds, None where there is none.

    ``sealed_by`` is the node that sealed last, whether or not it is there; ``rejected`` entries were not authentic;
    ``found`` is what the last entry ``audit.state`` tells, such as ``rolled_back``, and ``found_in`` its record.
    """

    is_on: bool
    stream: str | None = None
    records: int = 0
    waiting: int = 0
    oldest_waiting_s: float | None = None
    rejected: int = 0
    sealed_by: str | None = None
    checkpoint_records: int = 0
    checkpoint_age_s: float | None = None
    exported_records: int = 0
    exported_age_s: float | None = None
    found: str | None = None
    found_in: int | None = None


async def status_of(store: KeyStore) -> AuditStatus:
    """Return how the trail of a store stands. Nothing of it is verified."""
    async with store.reading() as work:
        is_on, row = (await work.state()).audited, await work.audit_state()
        waiting, oldest = await work.count_audit_entries()
        lease, now_ms = await work.find_lease(LEASE), await work.now_ms()
        told = await work.audit_records(where=AuditFilter(action="audit.state"), newest_first=True, limit=1)
    if row is None:
        return AuditStatus(is_on, waiting=waiting)
    try:
        stream = TrailState.parse(row.state).stream
    except (ValueError, TypeError):
        stream = None

    def age_s(at_ms: int) -> float | None:
        return max(0, now_ms - at_ms) / 1000 if at_ms else None

    return AuditStatus(
        is_on=is_on,
        stream=stream,
        records=row.size,
        waiting=waiting,
        # An id begins with the milliseconds of its making.
        oldest_waiting_s=None if oldest is None else age_s(int.from_bytes(oldest[:6], "big")),
        rejected=row.rejected,
        sealed_by=None if lease is None else lease.owner or None,
        checkpoint_records=row.checkpoint_size,
        checkpoint_age_s=age_s(row.checkpoint_ms),
        exported_records=row.exported_size,
        exported_age_s=age_s(row.exported_ms),
        found=_found(told[0]) if told else None,
        found_in=told[0].seq if told else None,
    )


def _found(row: AuditLogRow) -> str:
    try:
        parts = split_payload(parse_line(row.line).payload)
        return "malformed" if parts is None else str(Entry.parse(parts[0]).details.get("found"))
    except ValueError:
        return "malformed"
