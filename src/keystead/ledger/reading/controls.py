"""What a reader makes of the log's own records: sessions, crashes, checkpoints, and how files and streams end."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Final

from keystead.errors import InvalidSignatureError
from keystead.ledger.format.records import (
    TAIL_BYTES,
    Kind,
    MalformedRecordError,
    Record,
    closing,
    integer,
    parse_payload,
    recovery,
    retained,
    text,
)
from keystead.ledger.reading.losses import Junk
from keystead.ledger.reading.report import ErrorType
from keystead.model.counts import counted

if TYPE_CHECKING:
    from keystead.ledger.reading.checking import StreamChecker


_PROVEN: Final = -1
MAX_CUTS: Final = 16
"""Cuts that a checkpoint may still follow; a KMS that did not sign left others for good."""


class Controls:
    """The grammar of the log's own records."""

    def __init__(self, checker: StreamChecker) -> None:
        self._checker = checker
        self._rekeyed: str | None = None
        self._resumed: Junk | None = None
        self._closed: int | None = None
        self._is_closed = False
        self._asks_for_no_checkpoint = False
        self._close_number = 0
        self._told = 0
        self._first_file = 1
        self._gaps: list[tuple[range, int, int]] = []
        self._removed: dict[int, tuple[int, int, int]] = {}
        self._cuts: dict[int, bytes | None] = {}

    @property
    def is_waiting(self) -> bool:
        """Whether the next record must be one of the log's own."""
        return self._resumed is not None or self._rekeyed is not None or self._closed is not None

    def starts_at(self, file: int) -> None:
        """Note which file is the first one read."""
        self._first_file = file

    def gap(self, files: range, before: int, number: int) -> None:
        """Note files that are not there, between the records below ``before`` and a file that begins at ``number``."""
        if files:
            self._gaps.append((files, before, number))
        else:
            self._checker.find(ErrorType.REORDERED, "the file does not come after the one before it")

    def begin_file(self) -> None:
        """Begin a file."""
        self._closed, self._is_closed, self._rekeyed, self._resumed = None, False, None, None

    def took_records(self) -> None:
        """Take note of records of the application."""
        self._is_closed, self._told = False, self._checker.number

    def before(self, record: Record) -> None:
        """See that a record may stand where it does, and set the clock that its time is measured by."""
        find = self._checker.find
        if record.kind == Kind.CUT:
            self._cuts[record.number] = self._checker.root()
            if len(self._cuts) > MAX_CUTS:
                del self._cuts[next(iter(self._cuts))]
        if record.kind == Kind.CLOCK and self._checker.session is not None:
            with contextlib.suppress(MalformedRecordError):
                self._checker.session.step(integer(parse_payload(record.payload), "step"))
        if self._resumed is not None and record.kind == Kind.SESSION:
            self._checker.losses.take_opening(self._resumed)
        elif self._resumed is not None and record.kind != Kind.RECOVERY:
            self._resumed = None
            find(ErrorType.MALFORMED, "a session begins without a word of how the one before it ended")
            self._checker.losses.settle_junk(record)
        if self._rekeyed is not None and record.kind != Kind.SESSION:
            self._rekeyed = None
            find(ErrorType.MALFORMED, "a session hands over, and the next one does not begin")
        if self._closed is not None and record.kind not in {Kind.CHECKPOINT, Kind.SESSION}:
            find(ErrorType.MALFORMED, "the file goes on behind its end")
            self._closed = None

    def after(self, record: Record) -> None:
        """Follow what a record says."""
        if record.kind not in {Kind.CUT, Kind.CHECKPOINT}:
            self._told = record.number + 1
        if record.kind is None:
            self._is_closed = False
            return
        try:
            self._follow(Kind(record.kind), record)
        except (ValueError, MalformedRecordError):
            self._checker.find(ErrorType.MALFORMED, f"a record of kind {record.kind} that says what none may say")

    def checkpoint(self, record: Record) -> None:
        """Check a checkpoint against the records before it."""
        checker = self._checker
        try:
            note = text(parse_payload(record.payload), "note").encode()
            signed = checker.trust.checkpoint(note, record.time_ms)
        except MalformedRecordError:
            checker.find(ErrorType.CHECKPOINT, "a checkpoint is malformed")
            return
        except InvalidSignatureError as exc:
            checker.find(ErrorType.CHECKPOINT, str(exc))
            return
        if signed is None:
            self._asks_for_no_checkpoint = True
            return
        found = signed.checkpoint
        is_here = found.size == checker.number
        root = checker.root() if is_here else self._cuts.pop(found.size, b"")
        if found.origin != checker.trust.stream or root == b"":
            checker.find(ErrorType.CHECKPOINT, "a checkpoint of another log, or of another number of records")
        elif root is None:
            return
        elif found.root != root:
            checker.find(ErrorType.CHECKPOINT, "a checkpoint does not fit the records before it")
        elif signed.is_witnessed:
            checker.vouch(found)

    def ended_file(self) -> None:
        """Take note of a file's end, now that another file follows."""
        if self._resumed is not None:
            self._checker.find(ErrorType.MALFORMED, "a session begins without a word of how the one before it ended")
            self._resumed = None

    def finish(self, *, is_whole: bool, expect_closed: bool) -> None:
        """Take note of the last file's end."""
        checker = self._checker
        report = checker.report
        checker_has_files = report.files > 0
        # Without signers tags alone say who closed it: a key's, and not anybody's.
        is_vouched_by_tags = self._asks_for_no_checkpoint and not checker.has_unproven
        is_vouched = report.vouched > self._close_number or is_vouched_by_tags
        report.closed = self._is_closed and is_vouched and checker.losses.junk is None
        if is_whole and checker_has_files:
            self._gaps.append((range(1, self._first_file), 0, report.first))
        self._tell_gaps()
        if checker.losses.junk is not None:
            size = checker.losses.junk.end - checker.losses.junk.offset
            report.warnings.append(
                f"at the end {counted(size, 'byte is', 'bytes are')} no record, as a crash leaves them"
            )
        if self._resumed is not None:
            report.warnings.append("at the end a session only begins, as a crash leaves it")
        # A checkpoint, and the cut that announced it, say nothing that has to be vouched for.
        is_unproven = checker.has_unproven and not report.closed and report.vouched < self._told
        if is_unproven and report.vouched == 0 and report.valid:
            checker.find(ErrorType.UNTRUSTED, "no key seals these records, and no checkpoint vouches for any of them")
        elif is_unproven:
            report.warnings.append(f"the records from {report.vouched} on may be anybody's: no checkpoint vouches")
        if expect_closed and not report.closed and checker_has_files:
            checker.find(ErrorType.TRUNCATED, "the stream was closed, and this is not its end")
        elif not report.closed and report.vouched < checker.number:
            report.warnings.append(
                f"the stream is open: from record {report.vouched} on nothing vouches that none is missing at its end"
            )
        if is_whole and self._closed:
            report.warnings.append(
                f"the stream goes on in file {self._closed}, which is not here: it was removed, or never begun"
            )

    def _tell_gaps(self) -> None:
        """Say which files are not here, but for those that were removed with all records between what is here."""
        checker = self._checker
        vouched = checker.report.vouched
        removed = {
            file: (first, last) for file, (at, first, last) in self._removed.items() if at < vouched or at == _PROVEN
        }
        for files, before, number in self._gaps:
            gaps = list(_without(files, sorted(removed)))
            for gap in gaps:
                told = f"file {gap[0]}" if gap[0] == gap[-1] else f"files {gap[0]} to {gap[-1]}"
                checker.find(ErrorType.MISSING, f"{told}, before record {number}: not here")
            at = before
            for first, last in [] if gaps else [*(removed[file] for file in files), (number, number)]:
                if first != at:
                    told = f"records from {at} on, before record {number}: not here, and in no file that was removed"
                    checker.find(ErrorType.MISSING, told)
                    break
                at = last + 1

    def _follow(self, kind: Kind, record: Record) -> None:
        checker, payload = self._checker, parse_payload(record.payload)
        was_closed, self._is_closed = self._is_closed, False
        if kind is Kind.FILE:
            if checker.line != 1:
                raise MalformedRecordError("a file begins in the middle of one")
        elif kind is Kind.SESSION:
            self._begin_session(record, was_closed)
        elif kind is Kind.CLOCK:
            integer(payload, "step")
        elif kind is Kind.CUT:
            if payload != {}:
                raise MalformedRecordError("a cut that says something")
        elif kind is Kind.CHECKPOINT:
            self._is_closed = was_closed
        elif kind is Kind.REKEY:
            self._rekeyed = text(payload, "session")
        elif kind is Kind.RECOVERY:
            self._recover(*recovery(payload))
        elif kind is Kind.RETENTION:
            files, _ = retained(payload)
            # Where anybody could have made the tag, a checkpoint has to be over it.
            is_proven = checker.session is not None and checker.session.is_keyed
            for each in files:
                said = (_PROVEN if is_proven else record.number, each["first"], each["last"])
                self._removed[each["file"]] = min(said, self._removed.get(each["file"], said))
        elif kind is Kind.CLOSE:
            following = closing(payload)
            self._closed = 0 if following is None else following
            self._is_closed, self._close_number = following is None, record.number

    def _begin_session(self, record: Record, was_closed: bool) -> None:
        checker = self._checker
        checker.report.sessions += 1
        told = None if checker.session is None else checker.session.told
        named, self._rekeyed = self._rekeyed, None
        self._closed = self._resumed = None
        if told is None or told.epoch or told.steps:
            raise MalformedRecordError("a session that does not begin at its beginning")
        if checker.losses.junk is not None or not (was_closed or named == told.id):
            self._resumed = Junk(checker.line, checker.offset, checker.offset + len(record.head) + TAIL_BYTES)

    def _recover(self, size: int, digest: str) -> None:
        checker = self._checker
        if self._resumed is None:
            raise MalformedRecordError("a recovery of nothing")
        self._resumed = None
        junk = checker.losses.drop_junk()
        if junk is None:
            is_true = size == 0
        else:
            is_true = size == junk.end - junk.offset and digest == checker.file.digest(junk.offset, junk.end)
        if not is_true:
            where = {} if junk is None else {"line": junk.line, "offset": junk.offset}
            checker.find(ErrorType.MODIFIED, "what a crash had left is not what the log says of it", **where)


def _without(files: range, removed: Iterable[int]) -> Iterator[range]:
    """Yield what is left of ``files`` without ``removed``, which rises; a file may say that it is one of billions."""
    begin = files.start
    for file in removed:
        if file in files:
            if begin < file:
                yield range(begin, file)
            begin = file + 1
    if begin < files.stop:
        yield range(begin, files.stop)
