"""Sessions as their own first entries tell of them, where the rows that should do so are missing or are others.

Nothing of it is believed: the key that an entry tells of opens for its own session alone. Spec: docs/spec/audit-v1.md,
2.3 and 2.5.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Collection, Iterable
from typing import Final

from keystead.ledger.audit.entries import Entry, split_payload
from keystead.ledger.audit.sessions import SESSION, told_session
from keystead.ledger.format.records import MalformedRecordError, parse_line
from keystead.ports import AuditEntryRow, AuditFilter, AuditLogRow, AuditSessionRow, KeyStore

PAGE: Final = 500
_MARK: Final = b'"action":"%b"' % SESSION.encode()


async def told_sessions(store: KeyStore, wanted: Collection[str]) -> AsyncGenerator[AuditSessionRow, None]:
    """Yield what is told of sessions: in entries of theirs that wait, then in the log, what came last at first."""
    after: bytes | None = None
    while True:
        async with store.reading() as work:
            waiting = await work.audit_entries(sessions=wanted, after=after, limit=PAGE)
        for told in told_in(waiting):
            yield told
        if len(waiting) < PAGE:
            break
        after = waiting[-1].id
    before: int | None = None
    while True:
        async with store.reading() as work:
            where = AuditFilter(action=SESSION)
            rows = await work.audit_records(before=before, where=where, newest_first=True, limit=PAGE)
        for row in rows:
            begun = session_told_in(row)
            if begun is not None and begun.id in wanted:
                yield begun
        if len(rows) < PAGE:
            return
        before = rows[-1].seq


def told_in(waiting: Iterable[AuditEntryRow]) -> list[AuditSessionRow]:
    """Return the sessions that entries tell of which wait, each in its own."""
    found = [(row.session, _told(row.entry)) for row in waiting]
    return [told for session, told in found if told is not None and told.id == session]


def session_told_in(row: AuditLogRow) -> AuditSessionRow | None:
    """Return the session that a record tells of, in its own first entry."""
    return _told(_sealed(row))


def _told(content: bytes) -> AuditSessionRow | None:
    if _MARK not in content:
        return None
    try:
        return told_session(Entry.parse(content).members)
    except ValueError:
        return None


def _sealed(row: AuditLogRow) -> bytes:
    try:
        parts = split_payload(parse_line(row.line).payload)
    except MalformedRecordError:
        return b""
    return b"" if parts is None else parts[0]
