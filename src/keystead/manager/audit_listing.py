"""The entries of a store's audit trail as a person looks through them: from its rows alone, so that looking adds none.

No key is unwrapped for it, and the KMS is not asked; what is listed is not verified.
"""

from __future__ import annotations

import math
from collections.abc import AsyncGenerator, Collection
from contextlib import aclosing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from keystead.errors import ConflictError, InvalidProofError, KeyNotFoundError
from keystead.manager.audit_record import AuditRecord, SealedRecord, record_of, sealed_of
from keystead.manager.audit_status import no_trail, store_of
from keystead.ports import AuditFilter, UnitOfWork

if TYPE_CHECKING:
    from keystead.ledger.tlog.proof import ProofBundle
    from keystead.manager.core import ManagerCore
    from keystead.manager.manager import KeyManager

BOOKKEEPING: Final = frozenset({"audit.session", "audit.session_end", "audit.sequencer", "audit.checkpoint"})
"""Actions by which a trail keeps account of itself, at each start and end of a process among others."""
PAGE: Final = 1000
PAGE_OF_LONG: Final = 50
PAGE_OF_SHORT: Final = 200
"""Entries that are read at once behind a page of ``PAGE_OF_LONG`` that was short: all may be long."""
SHORT: Final = 1 << 16
"""Bytes that such a page has at most."""
MOST_AT_ONCE: Final = 1 << 20
"""Characters of what the entries of one answer tell; each has up to as many bytes."""
MOST_LOOKED: Final = 2000
"""Entries that one answer looks at for an actor, or of those that fit one thing that is asked for, for the others."""


@dataclass(frozen=True, slots=True)
class AuditPage:
    """Entries, the newest first, and the number before which the next page begins; None where nothing is older."""

    records: list[AuditRecord]
    behind: int | None = None


@dataclass(frozen=True, slots=True)
class AuditListing:
    """Entries by number, how many others among them were left out, and whether there are older ones.

    ``looked_to`` is the last entry that was looked at for an actor, where there are others before it.
    """

    records: list[AuditRecord]
    left_out: int = 0
    is_cut: bool = False
    looked_to: int | None = None


async def listed(
    manager: ManagerCore,
    where: AuditFilter,
    *,
    limit: int,
    before: int | None = None,
    actor: str = "",
    leaves_out: Collection[str] = (),
) -> AuditListing:
    """Return the newest entries, at most ``limit``; actions in ``leaves_out`` are counted only.

    The manager need not be initialised. A trail that has ended is listed as well.

    Args:
        before: only entries before this number.
        actor: as ``newest_before`` has it, which looks no further either.

    Raises:
        ConfigurationError: the store has never had a trail.
        StorageOperationError: as the store answers.
    """
    store, wanted = await store_of(manager), actor.casefold()
    found: list[AuditRecord] = []
    left_out = looked = 0
    last = -1
    async with store.reading() as work:
        if await work.audit_state() is None and not (await work.state()).audited:
            raise no_trail()
        async with aclosing(records_in(work, where, before=before, newest_first=True)) as records:
            async for record in records:
                if actor and looked == MOST_LOOKED:
                    return AuditListing(found[::-1], left_out, looked_to=last)
                looked += 1
                last = record.seq
                if not _is_of(record, wanted):
                    continue
                if record.action in leaves_out:
                    left_out += 1
                elif len(found) == limit:
                    return AuditListing(found[::-1], left_out, is_cut=True)
                else:
                    found.append(record)
    return AuditListing(found[::-1], left_out)


async def newest_before(
    manager: ManagerCore,
    where: AuditFilter,
    *,
    before: int | None,
    limit: int,
    actor: str = "",
    leaves_out: Collection[str] = (),
) -> AuditPage:
    """Return entries before a number, the newest first; errors as ``listed``.

    Of long entries there are fewer: together they have about a megabyte.

    Args:
        actor: a part of the actor's name, whatever its case.
        leaves_out: actions. With either, or where ``where`` asks for several things, no more than ``MOST_LOOKED``
            entries are looked at: a page may have fewer, or none, although there are others behind it.
    """
    store, wanted = await store_of(manager), actor.casefold()
    most = MOST_LOOKED if actor or leaves_out else math.inf
    found: list[AuditRecord] = []
    size = looked = 0
    last, behind, page = -1, before, min(limit + 1, PAGE_OF_LONG)
    async with store.reading() as work:
        if await work.audit_state() is None and not (await work.state()).audited:
            raise no_trail()
        while True:
            rows, behind = await work.find_audit_records(where, before=behind, among=MOST_LOOKED, limit=page)
            for record in filter(None, map(record_of, rows)):
                size += len(str(record.details)) + len(str(record.keys))
                if len(found) == limit or (found and size > MOST_AT_ONCE) or looked == most:
                    return AuditPage(found, last)
                looked += 1
                last = record.seq
                if record.action not in leaves_out and _is_of(record, wanted):
                    found.append(record)
            if len(rows) < page:
                return AuditPage(found, behind)
            is_short = sum(len(row.line) for row in rows[:PAGE_OF_LONG]) <= SHORT
            page = PAGE_OF_SHORT if is_short else PAGE_OF_LONG


async def sealed_at(manager: ManagerCore, number: int) -> SealedRecord:
    """Return a record by its number, entries and records of the log's own alike; errors as ``listed``.

    Raises:
        KeyNotFoundError: there is none.
    """
    store = await store_of(manager)
    async with store.reading() as work:
        rows = await work.audit_records(after=number - 1, before=number + 1, limit=1)
    sealed = sealed_of(rows[0]) if rows else None
    if sealed is None:
        raise KeyNotFoundError(f"the audit trail has no record {number} in this database")
    return sealed


async def proof_at(manager: KeyManager, number: int) -> ProofBundle:
    """Return the proof that a record is in the trail, with the record; errors as ``KeyManager.audit.prove``.

    Raises:
        ConflictError: what is there is not what the checkpoint over it says.
    """
    try:
        return await manager.audit.prove(number)
    except InvalidProofError:
        raise ConflictError(
            f"record {number}, or one near it, is not what the checkpoint over it says: verify the trail, which tells "
            "what was changed"
        ) from None


def _is_of(record: AuditRecord, wanted: str) -> bool:
    return wanted in (record.actor or "").casefold()


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
