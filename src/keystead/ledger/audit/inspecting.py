"""What a reader finds in entries, besides what every log's reader finds in records. Spec: docs/spec/audit-v1.md, 6."""

from __future__ import annotations

import json
import math
from binascii import b2a_base64
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from keystead.errors import InvalidSignatureError
from keystead.ledger.audit.acknowledging import ACKNOWLEDGE, Outstanding, acknowledged
from keystead.ledger.audit.chain import FOUND
from keystead.ledger.audit.entries import Entry, are_ranges, has_code, rejection_in, split_payload
from keystead.ledger.audit.examining import REJECTED, columns_of
from keystead.ledger.audit.key_rows import KeyStates
from keystead.ledger.audit.mark import Turns
from keystead.ledger.audit.numbers import Numbers
from keystead.ledger.audit.retiring import RETIRE, horizon_from, retired
from keystead.ledger.audit.sessions import LONGEST_MS, SESSION, SLACK_MS, Opens, first_opened, told_session
from keystead.ledger.format.records import TAIL_BYTES, MalformedRecordError, parse_line
from keystead.ledger.format.tags import TAG_CHARS, Tagger
from keystead.ledger.reading.report import ErrorType, VerifyError, VerifyReport
from keystead.model.counts import counted
from keystead.ports import AuditEntryRow, AuditLogRow, AuditSessionRow

TABLE: Final = "audit_log"
WAITING: Final = "audit_entries"
TOLD: Final = 20
"""How many gaps among the entries of a session are named, and how many findings that somebody has acknowledged."""

_ENTRY: Final = b',"d":{"entry":'
_LONGEST_BEGIN: Final = 16 + len(_ENTRY)
_CODE_END: Final = -len(b'"}') - TAIL_BYTES
_CODE_AT: Final = _CODE_END - TAG_CHARS
_MAC: Final = b',"mac":"'
_MAC_AT: Final = _CODE_AT - len(_MAC)
_TELLING: Final = frozenset({SESSION, "audit.session_end", FOUND, ACKNOWLEDGE, RETIRE})
_STATES: Final = {
    "altered": (ErrorType.MODIFIED, "the state beside the log was gone, or not authentic"),
    "behind": (ErrorType.ROLLED_BACK, "the state beside the log was behind its records"),
    "ahead": (ErrorType.TRUNCATED, "records at the end of the log were gone"),
    "gone": (ErrorType.REPLACED, "the trail was gone, and another one began"),
    "unmarked": (ErrorType.MISSING, "the store was not marked as audited, and may have been changed without a word"),
    "replaced": (ErrorType.REPLACED, "a kept checkpoint was of another log"),
    "rolled_back": (ErrorType.ROLLED_BACK, "a kept checkpoint was over more records than the log had"),
    "forked": (ErrorType.REPLACED, "a kept checkpoint was over other records than the log had"),
    "unproven": (ErrorType.MISSING, "records were missing that show that the log continued a kept checkpoint"),
}
"""What an entry ``audit.state`` tells."""
_UNUSUAL: Final = frozenset({"undone", "epoch", "keys"})
_scan: Final = json.JSONDecoder().raw_decode


@dataclass(slots=True)
class _Seen:
    """What was seen of a session. It began no earlier than at ``begun_ms``, as far as that is known."""

    make_code: Tagger | None = None
    begun_ms: float = 0
    numbers: Numbers = field(default_factory=Numbers)
    has_begun: bool = False
    ok: int = 0
    last: int | None = None
    undone: Numbers = field(default_factory=Numbers)

    def missing(self, ok: int) -> list[list[int]]:
        """Return the numbers below one that were committed and are not there."""
        for first, last in self.undone.ranges(ok):
            self.numbers.add_range(first, last)
        return [[first, last] for first, last in self.numbers.holes(ok)]


class Inspector:
    """Looks at each record of a trail, in the order of the log; ``finish`` tells what is missing.

    Args:
        opens: opens sessions.
        sessions: what is told of sessions that began before what is read, or wait to be sealed; more of one as well.
        until: the last record that ``outstanding`` is about; None for all.
    """

    def __init__(self, opens: Opens, sessions: Iterable[AuditSessionRow] = (), *, until: int | None = None) -> None:
        self.entries = self.rejected = self.unchecked = self.waiting = 0
        self.states, self._turns = KeyStates(), Turns()
        self.findings: list[VerifyError] = []
        self.warnings: list[str] = []
        self._opens = opens
        self._told: dict[str, list[AuditSessionRow]] = {}
        for row in sessions:
            self._told.setdefault(row.id, []).append(row)
        self.outstanding = Outstanding()
        self.waits_from = math.inf
        self._until = until
        self._ok_until: dict[str, int] | None = None
        self._seen: dict[str, _Seen] = {}
        self._first_ms: int | None = None
        self._lasting: list[tuple[ErrorType, str, int]] = []
        self._acknowledged = -1
        self._gaps: dict[str, Numbers] = {}

    def take_row(self, row: AuditLogRow) -> None:
        """Look at a record, and at what it is searched by."""
        if self._until is not None and row.seq > self._until and self._ok_until is None:
            self._ok_until = {name: seen.ok for name, seen in self._seen.items()}
        if self._take_usual(row):
            return
        found = self._take(row.line, row.seq)
        if found is not None and found != row and found._replace(entry_id=None) == row:
            # So seals a sequencer which finds that somebody has listed another row under the entry's id.
            self._find_once(ErrorType.MODIFIED, f"record {row.seq} is not listed under its entry's id", row.seq)
        elif found is not None and found != row:
            self._find(ErrorType.MODIFIED, f"record {row.seq} is listed as what it is not", row.seq)

    def take_line(self, line: bytes) -> None:
        """Look at a record that was moved away."""
        self._take(line, None)

    def take_waiting(self, row: AuditEntryRow) -> None:
        """Look at an entry that waits to be sealed."""
        self.waiting += 1
        try:
            entry = Entry.parse(row.entry)
        except ValueError:
            entry = None
        seen = self._session(row.session)
        is_code = entry is not None and seen.make_code is not None and has_code(seen.make_code, row.entry, row.code)
        if entry is None or not is_code or entry.id != row.id or entry.members["session"] != row.session:
            self._find(ErrorType.INSERTED, f"entry {row.id.hex()}, which waits, is not authentic", -1, WAITING)
            return
        self._note(entry, seen, -1)
        self.waits_from = min(self.waits_from, seen.begun_ms)

    def finish(self, report: VerifyReport) -> None:
        """Say what was found, and which entries are not there although they were committed."""
        horizon = None if self._first_ms is None else horizon_from(self._first_ms)
        for name, seen in self._seen.items():
            # Whatever else of it is not here was moved away with its beginning.
            if seen.has_begun or report.first == 0 or (horizon is not None and seen.begun_ms >= horizon):
                self._count(name, seen)
        for number in self._turns.unended():
            message = f"{_place(number)}: the trail begins, and had not ended: what changed between is not in it"
            self._find_once(ErrorType.MISSING, message, number)
        self._tell_lasting()
        for finding in self.findings:
            report.add(finding)
        report.warnings += self.warnings

    def _count(self, name: str, seen: _Seen) -> None:
        """Say which entries of a session are not there, and which of those somebody has looked into."""
        gone = seen.missing(seen.ok)
        known = self._gaps.get(name, Numbers())
        found, told = known.parted(gone)
        if told:
            self.warnings.append(f"{_gap(name, told)} (acknowledged)")
        if not found:
            return
        self._find(ErrorType.MISSING, _gap(name, found), -1, WAITING)
        ok = seen.ok if self._ok_until is None else self._ok_until.get(name, 0)
        if ok and (looked_into := known.parted(seen.missing(ok))[0]):
            self.outstanding.missing[name] = looked_into

    def _tell_lasting(self) -> None:
        """Say what stays in the log for good: a finding until somebody has acknowledged it."""
        known = 0
        for kind, message, number in self._lasting:
            if 0 <= number <= self._acknowledged:
                known += 1
                if known <= TOLD:
                    self.warnings.append(f"{message} (acknowledged)")
                continue
            self._find(kind, message, number, WAITING if number < 0 else TABLE)
            if number >= 0 and (self._until is None or number <= self._until):
                self.outstanding.records.append(number)
        if known > TOLD:
            self.warnings.append(f"{known - TOLD} more were acknowledged")

    def _take_usual(self, row: AuditLogRow) -> bool:
        """Take an entry that changes no key and tells of no session; False for any other, of which nothing is noted."""
        line = row.line
        head = b'{"n":%d,"t":' % row.seq
        begin = line.find(_ENTRY, len(head), len(head) + _LONGEST_BEGIN)
        is_whole = line.startswith(_MAC, _MAC_AT) and line.startswith(b'"}', _CODE_END)
        if begin < 0 or not is_whole or not line.startswith(head) or not line[len(head) : begin].isdigit():
            return False
        content, code = line[begin + len(_ENTRY) : _MAC_AT], line[_CODE_AT:_CODE_END]
        try:
            text = content.decode()
            members, end = _scan(text)
            seen, number, ok, action = self._seen[members["session"]], members["n"], members["ok"], members["action"]
            are_numbers = type(number) is type(ok) is int and number > 0 <= ok
            if end != len(text) or not are_numbers or action in _TELLING or not _UNUSUAL.isdisjoint(members):
                return False
            key_id, keyring = members.get("key_id"), members.get("keyring")
            is_listed = (
                (row.action, row.at, row.keyring, row.kind) == (action, members["time"], keyring, None)
                and row.entry_id == bytes.fromhex(members["id"].replace("-", ""))
                and (key_id is None if row.key_id is None else key_id == str(row.key_id))
            )
        except (KeyError, ValueError, TypeError, AttributeError, StopIteration):
            return False
        is_after = seen.last is not None and number > seen.last
        if seen.make_code is None or not is_listed or is_after or not isinstance(members.get("node"), str):
            return False
        if b2a_base64(seen.make_code(content))[:TAG_CHARS] != code or number in seen.numbers:
            return False
        self.entries += 1
        seen.numbers.add(number)
        seen.ok = max(seen.ok, ok)
        return True

    def _take(self, line: bytes, seq: int | None) -> AuditLogRow | None:
        """Look at a line; return the row that it should stand in, None where that cannot be said."""
        try:
            record = parse_line(line)
        except MalformedRecordError:
            return None  # the reader of the log finds that
        number = record.number if seq is None else seq
        if self._first_ms is None:
            self._first_ms = record.time_ms
        if record.kind is not None:
            return AuditLogRow(number, line, record.kind)
        parts = split_payload(record.payload)
        if parts is None:
            return self._take_rejected(record.payload, number, line)
        try:
            entry = Entry.parse(parts[0])
        except ValueError:
            self._find(ErrorType.MALFORMED, f"record {number} holds no entry", number)
            return None
        self.entries += 1
        seen = self._session(entry.members["session"], entry)
        if seen.make_code is None:
            self.unchecked += 1
        elif not has_code(seen.make_code, *parts):
            self._find(ErrorType.MODIFIED, f"the entry in record {number} is not authentic", number)
            return None
        self._note(entry, seen, number)
        return columns_of(number, line, entry)

    def _take_rejected(self, payload: bytes, number: int, line: bytes) -> AuditLogRow | None:
        told = rejection_in(payload)
        if told is None:
            self._find(ErrorType.MALFORMED, f"record {number} holds no entry", number)
            return None
        self.rejected += 1
        reason, row_id = str(told.get("reason")), str(told.get("row"))
        message = f"record {number}: an entry that was not authentic ({reason}, row {row_id})"
        self._find_once(ErrorType.INSERTED, message, number)
        return AuditLogRow(number, line, action=REJECTED)

    def _session(self, name: str, entry: Entry | None = None) -> _Seen:
        seen = self._seen.get(name)
        told = None if entry is None else told_session(entry.members)
        if seen is None:
            seen = self._seen[name] = _Seen()
            self._open(name, seen, told)
        elif told is not None and seen.make_code is None:
            self._open(name, seen, told)
        return seen

    def _open(self, name: str, seen: _Seen, told: AuditSessionRow | None) -> None:
        """Open a session, by what its own first entry tells, or what is told of it otherwise."""
        try:
            found = first_opened(self._opens, [*([] if told is None else [told]), *self._told.get(name, ())])
        except InvalidSignatureError:
            self._find(ErrorType.UNTRUSTED, f"session {name} is none of this store", -1)
            return
        if found is not None:
            row, seen.make_code = found
            seen.begun_ms = max(seen.begun_ms, row.begun_ms)

    def _note(self, entry: Entry, seen: _Seen, number: int) -> None:
        members = entry.members
        count, action = members["n"], members["action"]
        if not seen.numbers.add(count):
            what = f"entry {count} of session {members['session']} is here twice"
            self._find(ErrorType.DUPLICATED, what, number)
        if seen.last is not None and count > seen.last:
            self._find(ErrorType.INSERTED, f"record {number} is of a session that had ended", number)
        seen.begun_ms = max(seen.begun_ms, _begun_after_ms(members["time"]))
        seen.has_begun |= count == 0
        seen.ok = max(seen.ok, members["ok"])
        for first, last in members.get("undone", ()):
            seen.undone.add_range(first, last)
        if action == "audit.session_end":
            seen.last = count
        elif action == SESSION:
            self._note_former(entry.details.get("after"))
        elif action == FOUND:
            told = str(entry.details.get("found"))
            kind, what = _STATES.get(told, (ErrorType.MODIFIED, told))
            self._find_once(kind, f"{_place(number)}: {what} when {members['node']} went on with it", number)
        elif action == ACKNOWLEDGE:
            self._acknowledge(entry.details, number)
        elif action == RETIRE and retired(entry.details) is None:
            self.warnings.append(f"{_place(number)} tells of files that were moved away, which cannot be")
        self._turns.take(members, number)
        try:
            self.states.take(members)
        except (KeyError, ValueError, TypeError):
            self._find(ErrorType.MALFORMED, f"record {number} says of keys what none may say", number)

    def _note_former(self, told: Any) -> None:
        """Take what a session says of the one before it."""
        if not isinstance(told, Mapping) or not isinstance(told.get("session"), str):
            return
        former = self._session(told["session"])
        if isinstance(told.get("ok"), int):
            former.ok = max(former.ok, told["ok"])
        if isinstance(told.get("begun"), int):
            former.begun_ms = max(former.begun_ms, told["begun"])
        if are_ranges(told.get("undone")):
            for first, last in told["undone"]:
                former.undone.add_range(first, last)

    def _acknowledge(self, details: Mapping[str, Any], number: int) -> None:
        """Take what somebody has looked into; of records, those before the one that says so."""
        told = acknowledged(details)
        if told is None:
            self.warnings.append(f"{_place(number)} acknowledges what cannot be")
            return
        record, gaps = told
        self._acknowledged = max(self._acknowledged, record if number < 0 else min(record, number - 1))
        for session, ranges in gaps.items():
            for first, last in ranges:
                self._gaps.setdefault(session, Numbers()).add_range(first, last)

    def _find_once(self, kind: ErrorType, message: str, number: int) -> None:
        """Find what stays in the log for good."""
        self._lasting.append((kind, message, number))

    def _find(self, kind: ErrorType, message: str, seq: int, where: str = TABLE) -> None:
        self.findings.append(VerifyError(kind, message, where, 0, 0, seq))


def _begun_after_ms(time: str) -> float:
    """Return the time at which the session of an entry began at the earliest."""
    try:
        return datetime.fromisoformat(time).timestamp() * 1000 - LONGEST_MS - SLACK_MS
    except (ValueError, OverflowError):
        return 0


def _gap(session: str, gone: Sequence[Sequence[int]]) -> str:
    told = ", ".join(f"{first}" if first == last else f"{first} to {last}" for first, last in gone[:TOLD])
    count = sum(last - first + 1 for first, last in gone)
    more = ", ..." if len(gone) > TOLD else ""
    return f"{counted(count, 'entry', 'entries')} committed in session {session}, and not here: {told}{more}"


def _place(number: int) -> str:
    return "an entry that waits" if number < 0 else f"record {number}"
