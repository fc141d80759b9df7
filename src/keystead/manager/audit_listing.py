"""The entries of a store's audit trail as a person looks through them: from its rows alone, so that looking adds none.

No key is unwrapped for it, and the KMS is not asked; what is listed is not verified.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Collection
from contextlib import aclosing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from keystead.manager.audit_record import AuditRecord, record_of
from keystead.manager.audit_status import no_trail, store_of
from keystead.ports import AuditFilter, UnitOfWork

if TYPE_CHECKING:
    from keystead.manager.core import ManagerCore

BOOKKEEPING: Final = frozenset({"audit.session", "audit.session_end", "audit.sequencer", "audit.checkpoint"})
"""Actions by which a trail keeps account of itself, at each start and end of a process among others."""
PAGE: Final = 1000
PAGE_OF_LONG: Final = 50
MOST_AT_ONCE: Final = 1 << 20
"""Characters of what the entries of one answer tell; each has up to as many bytes."""


@dataclass(frozen=True, slots=True)
class AuditListing:
    """Entries by number, how many others among them were left out, and whether there are older ones."""

    records: list[AuditRecord]
    left_out: int = 0
    is_cut: bool = False


async def listed(
    manager: ManagerCore, where: AuditFilter, *, limit: int, leaves_out: Collection[str] = ()
) -> AuditListing:
    """Return the newest entries, at most ``limit``; actions in ``leaves_out`` are counted only.

    The manager need not be initialised. A trail that has ended is listed as well.

    Raises:
        ConfigurationError: the store has never had a trail.
        StorageOperationError: as the store answers.
    """
    store = await store_of(manager)
    found: list[AuditRecord] = []
    left_out, is_cut = 0, False
    async with store.reading() as work:
        if await work.audit_state() is None and not (await work.state()).audited:
            raise no_trail()
        async with aclosing(records_in(work, where, newest_first=True)) as records:
            async for record in records:
                if record.action in leaves_out:
                    left_out += 1
                elif len(found) == limit:
                    is_cut = True
                    break
                else:
                    found.append(record)
    return AuditListing(found[::-1], left_out, is_cut)


async def newest_before(
    manager: ManagerCore, where: AuditFilter, *, before: int | None, limit: int
) -> tuple[list[AuditRecord], bool]:
    """Return entries before a number, the newest first, and whether there are older ones; errors as ``listed``.

    Of long entries there are fewer: together they have about a megabyte.
    """
    store = await store_of(manager)
    found: list[AuditRecord] = []
    size = 0
    async with store.reading() as work:
        if await work.audit_state() is None and not (await work.state()).audited:
            raise no_trail()
        async with aclosing(
            records_in(work, where, before=before, newest_first=True, page=min(limit + 1, PAGE_OF_LONG))
        ) as records:
            async for record in records:
                size += len(str(record.details)) + len(str(record.keys))
                if len(found) == limit or (found and size > MOST_AT_ONCE):
                    return found, True
                found.append(record)
    return found, False


async def records_in(
    work: UnitOfWork,
    where: AuditFilter,
    *,
    after: int = -1,
    before: int | None = None,
    newest_first: bool = False,
    page: int = PAGE,
) -> AsyncGenerator[AuditRecord, None]:
    """Yield entries by number, ``page`` read at once, the log's own records left out; both bounds are excluded."""
    while True:
        rows = await work.audit_records(after=after, before=before, where=where, newest_first=newest_first, limit=page)
        for row in rows:
            if (record := record_of(row)) is not None:
                yield record
        if len(rows) < page:
            return
        after, before = (after, rows[-1].seq) if newest_first else (rows[-1].seq, before)
