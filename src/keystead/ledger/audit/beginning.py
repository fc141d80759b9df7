"""The beginning of a trail: every data key that there is, in entries of one transaction."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from typing import Final, NamedTuple

from keystead.errors import ConflictError
from keystead.ledger.audit.actor import current_actor
from keystead.ledger.audit.chain import BEGIN, FOUND, UNMARKED
from keystead.ledger.audit.mark import Mark, MarkReader
from keystead.ledger.audit.standing import first_state
from keystead.ledger.audit.trail import Told, Trail, Written
from keystead.model import KeyRecord
from keystead.ports import AuditEvent, Detail, KeyChanges, UnitOfWork

log = logging.getLogger("keystead.audit")

KEYS_AT_ONCE: Final = 500
PAGE: Final = 1000


class Begun(NamedTuple):
    """Whether a trail has begun, and a store epoch at which it is kept; None where it has been ended."""

    is_new: bool
    epoch: int | None


async def begin_trail(trail: Trail, marks: MarkReader, stream: str, *, known: int = 0, begins: bool) -> Begun:
    """See that the store is marked as audited, and that its trail has begun with what the store holds.

    Args:
        stream: the name of the log, where there is none yet.
        known: a store epoch at which a trail is known to have been kept; 0 where that is not known.
        begins: whether a trail that was ended begins again.

    Raises:
        ConflictError: the store was changed meanwhile; try again.
        KMSError: it cannot be written; nothing has begun.
    """
    mark = await marks.read()
    is_kept = mark.has_log and not mark.is_blank and mark.over is None
    if mark.is_set and is_kept:
        return Begun(False, mark.epoch if mark.state is None else mark.state.since)
    is_over = mark.is_over(known)
    if is_over and not mark.is_set and not begins:
        return Begun(False, None)
    found = _found(mark, known)
    async with settling(trail) as written, trail.store.transaction() as work:
        # From here on nobody changes a key, or begins or ends the trail, before this transaction ends.
        epoch = await work.bump_epoch()
        if epoch != mark.epoch + 1:
            raise ConflictError("the store was changed while its audit trail began; try again")
        if not mark.has_log:
            row = first_state(marks.keys, trail.store_id, stream, since=epoch)
            await work.put_audit_state(row, expected=None)
        if found is not None:
            event = AuditEvent(FOUND, details={"found": found, "size": 0})
            written.append(await write_event(trail, work, event, KeyChanges(epoch)))
        await work.set_audited(True)
        if found != UNMARKED:
            written.extend(await write_keys(trail, work, BEGIN))
    return Begun(found != UNMARKED, epoch)


def _found(mark: Mark, known: int) -> str | None:
    """Return what is wrong with a store whose trail has to begin, or to be marked; None where nothing is."""
    if not mark.has_log:
        if not mark.is_set and not known:
            return None
        log.error("the audit trail of this store is gone; another one begins")
        return "gone"
    if mark.is_blank or mark.is_over(known):
        return None
    log.error("this store keeps an audit trail and was not marked so: what changed meanwhile is not in it")
    return UNMARKED


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
