"""How a store's audit trail stands, from its rows alone: no key is used for it, and nothing verified or written."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from keystead.config.durations import age_text
from keystead.errors import ConfigurationError
from keystead.ledger.audit.acknowledging import ACKNOWLEDGE, acknowledged
from keystead.ledger.audit.chain import FOUND, TrailState
from keystead.ledger.audit.entries import Entry, split_payload
from keystead.ledger.audit.examining import REJECTED
from keystead.ledger.audit.looking import LEASE
from keystead.ledger.audit.mark import turning
from keystead.ledger.format.records import parse_line
from keystead.model.counts import counted
from keystead.ports import AuditEntryRow, AuditFilter, AuditLogRow, AuditStateRow, KeyStore, UnitOfWork

if TYPE_CHECKING:
    from keystead.manager.core import ManagerCore


@dataclass(frozen=True, slots=True)
class AuditStatus:
    """How a trail stands. ``waiting`` entries are not sealed yet; ages are in seconds, None where there is none.

    ``is_marked`` says whether the store itself says that it keeps a trail; who takes that away has not ended it.
    ``sealed_by`` is the node that sealed last, and ``is_sealing`` whether it is there still; ``rejected`` entries were
    not authentic; ``found`` is what the last entry ``audit.state`` tells, such as ``rolled_back``, and ``found_in`` its
    record. What was acknowledged is in neither.
    """

    is_on: bool
    is_marked: bool = False
    stream: str | None = None
    records: int = 0
    waiting: int = 0
    oldest_waiting_s: float | None = None
    rejected: int = 0
    sealed_by: str | None = None
    is_sealing: bool = False
    checkpoint_records: int = 0
    checkpoint_age_s: float | None = None
    exported_records: int = 0
    exported_age_s: float | None = None
    found: str | None = None
    found_in: int | None = None


def covered_text(records: int, age_s: float) -> str:
    """Return what a checkpoint covers, and how old it is."""
    return f"over {counted(records, 'record')}, {age_text(age_s)} ago"


def rejected_text(status: AuditStatus) -> str:
    """Return how many entries were rejected."""
    return counted(status.rejected, "entry was not authentic", "entries were not authentic")


def waiting_text(status: AuditStatus) -> str:
    """Return how many entries wait, and for how long."""
    if not status.waiting:
        return "nothing"
    return f"{counted(status.waiting, 'entry', 'entries')}, the oldest for {age_text(status.oldest_waiting_s or 0)}"


def no_trail() -> ConfigurationError:
    """Return what is raised where a trail is asked for, and the store keeps none."""
    return ConfigurationError("this store keeps no audit trail: `keystead audit begin`, or audit=True, begins one")


async def store_of(manager: ManagerCore) -> KeyStore:
    """Return the store of a manager that need not be initialised, once it is known that this release works on it.

    Raises:
        StorageOperationError: as ``KeyStore.open``.
    """
    store = manager.surroundings().store
    await store.open()
    return store


async def seen_status(manager: ManagerCore, *, at_most: int | None = None) -> AuditStatus:
    """Return how the trail stands in the store of a manager that need not be initialised, as ``status_of``.

    Errors as ``store_of``.
    """
    store, journal = await store_of(manager), manager.surroundings().journal
    async with store.reading() as work:
        store_id = (await work.state()).store_id
    known = (await asyncio.to_thread(journal.read, store_id)).audited
    return await status_of(store, known=known, at_most=at_most)


async def status_of(store: KeyStore, *, known: int = 0, at_most: int | None = None) -> AuditStatus:
    """Return how the trail of a store stands.

    Args:
        known: the highest epoch of the store at which a trail is known, from outside the database, to have been kept.
        at_most: up to how many entries that wait, or were rejected, are counted.
    """
    async with store.reading() as work:
        is_marked, row = (await work.state()).audited, await work.audit_state()
        has_trace = is_marked or await work.has_audit_trace()
        waiting, oldest = await work.count_audit_entries(at_most=at_most)
        turns = [] if is_marked else await turning(work)
        lease, now_ms = await work.find_lease(LEASE), await work.now_ms()
        looked_into = await _acknowledged(work)
        after = -1 if looked_into is None else looked_into
        told = await work.audit_records(after=after, where=AuditFilter(action=FOUND), newest_first=True, limit=1)
        size, where = 0 if row is None else row.size, AuditFilter(action=REJECTED)
        rejected = await work.count_audit_records(after=after, before=size, where=where, at_most=at_most)
        if row is not None and looked_into is None:
            rejected = max(rejected, row.rejected)  # some may have been moved away
    if row is None:
        return AuditStatus(has_trace or known > 0, is_marked, waiting=waiting)
    state = _parsed(row, turns)
    is_on = is_marked or state is None or state.is_on or known > (state.over or 0)

    def age_s(at_ms: int) -> float | None:
        return max(0, now_ms - at_ms) / 1000 if at_ms else None

    return AuditStatus(
        is_on=is_on,
        is_marked=is_marked,
        stream=None if state is None else state.stream,
        records=row.size,
        waiting=waiting,
        # An id begins with the milliseconds of its making.
        oldest_waiting_s=None if oldest is None else age_s(int.from_bytes(oldest[:6], "big")),
        rejected=rejected,
        sealed_by=None if lease is None else lease.owner or None,
        is_sealing=lease is not None and bool(lease.owner) and lease.until_ms > now_ms,
        checkpoint_records=row.checkpoint_size,
        checkpoint_age_s=age_s(row.checkpoint_ms),
        exported_records=row.exported_size,
        exported_age_s=age_s(row.exported_ms),
        found=_found(told[0]) if told else None,
        found_in=told[0].seq if told else None,
    )


def _parsed(row: AuditStateRow, turns: Sequence[AuditEntryRow]) -> TrailState | None:
    """Return the state, with what entries say that wait and turn the trail on or off."""
    try:
        state = TrailState.parse(row.state)
        for turn in turns:
            state = state.after(Entry.parse(turn.entry).members)
    except (ValueError, TypeError):
        return None
    return state


async def _acknowledged(work: UnitOfWork) -> int | None:
    """Return the last record that somebody has looked into; None where nobody has."""
    rows = await work.audit_records(where=AuditFilter(action=ACKNOWLEDGE), newest_first=True)
    told = [(row.seq, acknowledged(details)) for row in rows if (details := _details(row)) is not None]
    return max((min(each[0], seq - 1) for seq, each in told if each is not None), default=None)


def _found(row: AuditLogRow) -> str:
    details = _details(row)
    return "malformed" if details is None else str(details.get("found"))


def _details(row: AuditLogRow) -> Mapping[str, Any] | None:
    """Return the details of the entry in a record; None where it holds none."""
    try:
        parts = split_payload(parse_line(row.line).payload)
        return None if parts is None else Entry.parse(parts[0]).details
    except ValueError:
        return None
