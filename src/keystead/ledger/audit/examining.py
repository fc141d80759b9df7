"""Looking at entries before they are sealed: what is authentic, and why what is not is not.

Spec: docs/spec/audit-v1.md, 3.3.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Final

from keystead.crypto.keyring import Keyring
from keystead.errors import DecryptionError, KMSError
from keystead.ledger.audit.entries import Entry, has_code, rejected_payload, sealed_payload
from keystead.ledger.audit.sessions import is_in_time, open_session, wrapped_by
from keystead.ledger.format.tags import Tagger
from keystead.ports import AuditEntryRow, AuditLogRow, AuditSessionRow

log = logging.getLogger("keystead.audit")

HELD_SESSIONS: Final = 256
REJECTED: Final = "audit.rejected"
"""What rejections are searched by."""


class Reason(StrEnum):
    """Why an entry is not authentic."""

    SESSION = "session"
    ENDED = "ended"
    CODE = "code"
    MALFORMED = "malformed"
    DUPLICATE = "duplicate"


@dataclass(frozen=True, slots=True)
class KnownSession:
    """A session of whoever wrote entries; without ``make_code`` its key is not its own, or there is no such session."""

    row: AuditSessionRow | None
    make_code: Tagger | None


@dataclass(frozen=True, slots=True)
class Examined:
    """An entry, its record's payload, and why it is not authentic (None: it is)."""

    row: AuditEntryRow
    payload: bytes
    entry: Entry | None
    reason: Reason | None = None

    def columns(self, seq: int, line: bytes) -> AuditLogRow:
        """Return its record as the table has it."""
        if self.entry is None:
            return AuditLogRow(seq, line, action=REJECTED)
        return columns_of(seq, line, self.entry)


def columns_of(seq: int, line: bytes, entry: Entry) -> AuditLogRow:
    """Return an entry's record with what it is searched by; None in place of what no column can hold."""
    members = entry.members
    return AuditLogRow(
        seq,
        line,
        None,
        entry.id,
        _column(members["time"], 27),
        _column(members["action"], 64),
        _column(members.get("keyring"), 255),
        entry.key_id,
    )


class SessionKeys:
    """Opens the sessions of every node, and holds those that were needed last.

    Args:
        load_wrap_key: loads a WRAP key by its id; False where the store has no such key.
    """

    def __init__(self, ring: Keyring, store_id: str, load_wrap_key: Callable[[int], Awaitable[bool]]) -> None:
        self._ring = ring
        self._store_id = store_id
        self._load_wrap_key = load_wrap_key
        self._held: OrderedDict[str, KnownSession] = OrderedDict()

    async def known(self, wanted: Collection[str], rows: Iterable[AuditSessionRow]) -> dict[str, KnownSession]:
        """Return sessions; one that cannot be opened now is left out, with a word in the log.

        Args:
            rows: theirs, as far as there are such.
        """
        found = {row.id: row for row in rows}
        known: dict[str, KnownSession] = {}
        for session in wanted:
            held = self._held.get(session)
            if held is None or (session in found and found[session] != held.row):
                try:
                    held = await self.open(found.get(session))
                except KMSError as exc:
                    log.warning("entries wait, since their session's key cannot be unwrapped now: %s", exc.code)
                    continue
                self._held[session] = held
                while len(self._held) > HELD_SESSIONS:
                    self._held.popitem(last=False)
            else:
                self._held.move_to_end(session)
            known[session] = held
        return known

    async def open(self, row: AuditSessionRow | None) -> KnownSession:
        """Return a session with what makes its codes, if its key is its own.

        Raises:
            KMSError: that cannot be found out now.
        """
        key_id = None if row is None else wrapped_by(row)
        if row is None or key_id is None or not await self._load_wrap_key(key_id):
            return KnownSession(row, None)
        try:
            return KnownSession(row, open_session(self._ring, self._store_id, row))
        except DecryptionError as exc:
            if exc.retryable:
                raise
            return KnownSession(row, None)

    def forget(self) -> None:
        """Forget every session."""
        self._held.clear()


def examine(
    rows: Iterable[AuditEntryRow], known: Mapping[str, KnownSession], recorded: Collection[bytes]
) -> list[Examined]:
    """Return what becomes of entries.

    Args:
        known: the sessions that they say they are of.
        recorded: ids of those that are in the log already.
    """
    examined: list[Examined] = []
    for row in rows:
        entry, reason = _looked_at(row, known[row.session], recorded)
        if reason is None:
            examined.append(Examined(row, sealed_payload(row.entry, row.code), entry))
            continue
        log.error("an entry of the audit trail is not authentic: %s", reason.value, extra={"row": row.id.hex()})
        examined.append(Examined(row, rejected_payload(reason, row.id, row.entry), None, reason))
    return examined


def _looked_at(
    row: AuditEntryRow, session: KnownSession, recorded: Collection[bytes]
) -> tuple[Entry | None, Reason | None]:
    if session.make_code is None or session.row is None:
        return None, Reason.SESSION
    if not has_code(session.make_code, row.entry, row.code):
        return None, Reason.CODE
    try:
        entry = Entry.parse(row.entry)
        time_ms = datetime.fromisoformat(entry.members["time"]).timestamp() * 1000
    except ValueError:
        return None, Reason.MALFORMED
    if entry.id != row.id or entry.members["session"] != row.session:
        return None, Reason.MALFORMED
    if row.id in recorded:
        return None, Reason.DUPLICATE
    last = session.row.last
    if not is_in_time(session.row, time_ms) or (last is not None and entry.members["n"] > last):
        return None, Reason.ENDED
    return entry, None


def _column(text: str | None, chars: int) -> str | None:
    """Return the beginning of a text as far as a column holds it; None for a text that no column takes."""
    has_other = text is None or "\0" in text or any("\ud800" <= each <= "\udfff" for each in text)
    return None if text is None or has_other else text[:chars]
