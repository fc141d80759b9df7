"""The beginning of a trail: every data key that there is, in entries of one transaction."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from typing import Final

from keystead.ledger.audit.actor import current_actor
from keystead.ledger.audit.keys import StateKeys
from keystead.ledger.audit.standing import begin_log
from keystead.ledger.audit.trail import Told, Trail, Written
from keystead.model import KeyRecord
from keystead.ports import AuditEvent, Detail, KeyChanges, UnitOfWork

log = logging.getLogger("keystead.audit")

KEYS_AT_ONCE: Final = 500
PAGE: Final = 1000


async def begin_trail(trail: Trail, keys: StateKeys, stream: str) -> bool:
    """Mark the store as audited, and write what it holds; False where its trail has begun.

    Args:
        stream: the name of the log, where there is none yet.

    Raises:
        KMSError: it cannot be written; nothing has begun.
    """
    async with trail.store.reading() as work:
        if (await work.state()).audited and await work.audit_state() is not None:
            return False
    async with settling(trail) as written, trail.store.transaction() as work:
        # From here on nobody changes a key before this transaction ends.
        await work.bump_epoch()
        was_audited = (await work.state()).audited
        is_new = await begin_log(work, keys, trail.store_id, stream)
        if was_audited and not is_new:
            return False
        if was_audited:
            log.error("the audit trail of this store is gone; another one begins")
            event = AuditEvent("audit.state", details={"found": "gone", "size": 0})
            written.append(await write_event(trail, work, event))
        await work.set_audited(True)
        written.extend(await write_keys(trail, work, "audit.begin"))
    return True


async def write_keys(trail: Trail, work: UnitOfWork, action: str) -> list[Written]:
    """Write every data key of the store as it is, in as many entries as that takes; the first one is ``action``."""
    epoch, restored = await work.bump_epoch(), (await work.state()).restored
    rows = await _all_keys(work)
    written: list[Written] = []
    for part, keys in enumerate(_parts(rows)):
        details: dict[str, Detail] = {"part": part, "total": len(rows), "restored": restored}
        event = AuditEvent(action if part == 0 else "audit.snapshot", details=details)
        changes = KeyChanges(epoch, True, {row.id: row for row in keys})
        written.append(await write_event(trail, work, event, changes))
    return written


async def write_event(trail: Trail, work: UnitOfWork, event: AuditEvent, changes: KeyChanges | None = None) -> Written:
    """Write one event in a transaction of the store itself; whoever calls settles it."""
    entries, written = trail.draw_rows([Told(event, current_actor())], changes)
    await work.add_audit_entries(entries)
    return written


@asynccontextmanager
async def settling(trail: Trail) -> AsyncIterator[list[Written]]:
    """Settle what was written, once it is known how the transaction within has ended."""
    written: list[Written] = []
    is_committed = False
    try:
        yield written
        is_committed = True
    finally:
        for each in written:
            trail.settle(each, is_committed=is_committed)


def _parts(rows: Sequence[KeyRecord]) -> Iterator[Sequence[KeyRecord]]:
    yield rows[:KEYS_AT_ONCE]
    for at in range(KEYS_AT_ONCE, len(rows), KEYS_AT_ONCE):
        yield rows[at : at + KEYS_AT_ONCE]


async def _all_keys(work: UnitOfWork) -> list[KeyRecord]:
    rows: list[KeyRecord] = []
    while page := await work.keys(after_id=rows[-1].id if rows else 0, limit=PAGE):
        rows += page
    return rows
