"""Looking at entries before they are sealed: what is authentic, and why what is not is not.

Spec: docs/spec/audit-v1.md, 3.3.
"""

from __future__ import annotations

import logging
import re
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Final

from keystead.crypto.keyring import Keyring
from keystead.errors import DecryptionError, KMSError
from keystead.ledger.audit.entries import Entry, has_code, rejected_payload, sealed_payload
from keystead.ledger.audit.sessions import is_in_time, open_session, wrapped_by
from keystead.ledger.audit.told_sessions import told_sessions
from keystead.ledger.format.records import MalformedRecordError, parse_line
from keystead.ledger.format.tags import Tagger
from keystead.ports import AuditEntryRow, AuditLogRow, AuditSessionRow, KeyStore

log = logging.getLogger("keystead.audit")

HELD_SESSIONS: Final = 256
REJECTED: Final = "audit.rejected"
"""What rejections are searched by."""
_NO_COLUMN: Final = re.compile("[\0\ud800-\udfff]")


class Reason(StrEnum):
    """Why an entry is not authentic."""

    SESSION = "session"
    ENDED = "ended"
    CODE = "code"
    MALFORMED = "malformed"
    DUPLICATE = "duplicate"
    ARCHIVED = "archived"


@dataclass(frozen=True, slots=True)
class KnownSession:
    """A session of whoever wrote entries; without ``make_code`` nothing tells of it whose key is its own.

    ``row`` is what it was opened by, ``listed`` the store's row of it at that time.
    """

    row: AuditSessionRow | None
    make_code: Tagger | None
    listed: AuditSessionRow | None = None


@dataclass(frozen=True, slots=True)
class Examined:
    """An entry, its record's payload, and why it is not authentic (None: it is).

    Another row may be listed under its id already, without holding it: then its own record is not (``is_listed``).
    """

    row: AuditEntryRow
    payload: bytes
    entry: Entry | None
    reason: Reason | None = None
    is_listed: bool = True

    def columns(self, seq: int, line: bytes) -> AuditLogRow:
        """Return its record as the table has it."""
        if self.entry is None:
            return AuditLogRow(seq, line, action=REJECTED)
        columns = columns_of(seq, line, self.entry)
        return columns if self.is_listed else columns._replace(entry_id=None)


class Listing:
    """Which entries that wait are in the log, and which have a row listed under their id that does not hold them.

    Args:
        listed: the rows that are listed under the ids of ``waiting``. Nobody authenticates what they are listed under.
        size: how many records the log has; a row of a higher number is none of it.
    """

    def __init__(
        self, waiting: Iterable[AuditEntryRow] = (), listed: Iterable[AuditLogRow] = (), *, size: int = 0
    ) -> None:
        payloads = {row.id: sealed_payload(row.entry, row.code) for row in waiting}
        self.recorded: set[bytes] = set()
        self.taken: set[bytes] = set()
        for row in listed:
            if row.entry_id is not None:
                is_recorded = row.seq < size and _payload_in(row.line) == payloads[row.entry_id]
                (self.recorded if is_recorded else self.taken).add(row.entry_id)


def _payload_in(line: bytes) -> bytes | None:
    try:
        return parse_line(line).payload
    except MalformedRecordError:
        return None


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
        store: is asked for the first entries of sessions that its rows do not tell of, or not truly.
    """

    def __init__(
        self, ring: Keyring, store_id: str, load_wrap_key: Callable[[int], Awaitable[bool]], store: KeyStore
    ) -> None:
        self._ring = ring
        self._store_id = store_id
        self._load_wrap_key = load_wrap_key
        self._store = store
        self._held: OrderedDict[str, KnownSession] = OrderedDict()

    @property
    def opened(self) -> Collection[str]:
        """The sessions that are held with their keys, however the store's rows of them are changed."""
        return {name for name, held in self._held.items() if held.make_code is not None}

    async def known(self, wanted: Collection[str], rows: Iterable[AuditSessionRow]) -> dict[str, KnownSession]:
        """Return sessions; one that cannot be opened now is left out, with a word in the log.

        Args:
            rows: theirs, as far as there are such; none of those that are opened. Where one does not open, what its
                first entry tells is tried.
        """
        listed = {row.id: row for row in rows}
        known = {name: held for name in wanted if (held := self._find_held(name, listed.get(name))) is not None}
        asked = [name for name in wanted if name not in known]
        made, shut = await self._open_all(asked, listed)
        for name in asked:
            if name not in made and name in shut:
                log.warning("entries wait, since their session's key cannot be unwrapped now: %s", shut[name].code)
                continue
            row, make_code = made.get(name, (None, None))
            known[name] = self._held[name] = KnownSession(row, make_code, listed.get(name))
        while len(self._held) > HELD_SESSIONS:
            self._held.popitem(last=False)
        return known

    async def open(self, row: AuditSessionRow) -> Tagger | None:
        """Return what makes a session's codes; None where it is none, or its key is another's.

        Raises:
            KMSError: that cannot be found out now.
        """
        key_id = wrapped_by(row)
        if key_id is None or not await self._load_wrap_key(key_id):
            return None
        try:
            return open_session(self._ring, self._store_id, row)
        except DecryptionError as exc:
            if exc.retryable:
                raise
            return None

    def _find_held(self, name: str, listed: AuditSessionRow | None) -> KnownSession | None:
        held = self._held.get(name)
        if held is None or (listed is not None and listed != held.listed):
            return None
        self._held.move_to_end(name)
        return held

    async def _open_all(
        self, wanted: Collection[str], listed: Mapping[str, AuditSessionRow]
    ) -> tuple[dict[str, tuple[AuditSessionRow, Tagger]], dict[str, KMSError]]:
        """Return sessions with the row that each was opened by, and why others could not be opened now."""
        made: dict[str, tuple[AuditSessionRow, Tagger]] = {}
        shut: dict[str, KMSError] = {}

        async def try_row(row: AuditSessionRow) -> None:
            try:
                make_code = await self.open(row)
            except KMSError as exc:
                shut[row.id] = exc
            else:
                if make_code is not None:
                    made[row.id] = row, make_code

        for name in wanted:
            if name in listed:
                await try_row(listed[name])
        missing = {name for name in wanted if name not in made}
        if not missing:
            return made, shut
        async with aclosing(told_sessions(self._store, missing)) as told:
            async for row in told:
                if row.id not in made and row != listed.get(row.id):
                    await try_row(row)
                    if missing <= made.keys():
                        break
        return made, shut


def examine(
    rows: Iterable[AuditEntryRow],
    known: Mapping[str, KnownSession],
    listing: Listing,
    *,
    horizon: int = 0,
) -> list[Examined]:
    """Return what becomes of entries.

    Args:
        known: the sessions that they say they are of.
        listing: which of them are in the log already.
        horizon: sessions that began before are over, and their records may have been moved away.
    """
    examined: list[Examined] = []
    for row in rows:
        entry, reason = _looked_at(row, known[row.session], listing.recorded, horizon)
        if reason is None:
            is_listed = row.id not in listing.taken
            examined.append(Examined(row, sealed_payload(row.entry, row.code), entry, is_listed=is_listed))
            continue
        examined.append(Examined(row, rejected_payload(reason, row.id, row.entry), None, reason))
    return examined


def tell(examined: Iterable[Examined]) -> None:
    """Log what was wrong with entries; once they are sealed, for until then another process may have sealed them."""
    for each in examined:
        row = {"row": each.row.id.hex()}
        if each.reason is not None:
            log.error("an entry of the audit trail is not authentic: %s", each.reason.value, extra=row)
        elif not each.is_listed:
            log.error("a row of the audit trail is listed as an entry that it is not", extra=row)


def _looked_at(
    row: AuditEntryRow, session: KnownSession, recorded: Collection[bytes], horizon: int
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
    if session.row.begun_ms < horizon:
        return None, Reason.ARCHIVED
    if not is_in_time(session.row, time_ms):
        return None, Reason.ENDED
    return entry, None


def _column(text: str | None, chars: int) -> str | None:
    """Return the beginning of a text as far as a column holds it; None for a text that no column takes."""
    return None if text is None or _NO_COLUMN.search(text) else text[:chars]
