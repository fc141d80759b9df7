"""Following a stream through its files: every tag, number, time and root is computed again.

The common record goes through a loop that does nothing else (``runs``); whatever that does not take is looked at one
by one.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, Protocol

from keystead.crypto.merkle import Frontier, leaf_hash
from keystead.errors import CouldNotVerifyError, InvalidInputError, InvalidSignatureError
from keystead.ledger.format.records import (
    MAX_EPOCHS,
    FileHeader,
    Kind,
    MalformedRecordError,
    Record,
    Session,
    integer,
    parse_line,
    parse_payload,
    stated_tag,
)
from keystead.ledger.format.tags import NO_TAG
from keystead.ledger.reading.controls import Controls
from keystead.ledger.reading.lines import Batch, LogFile
from keystead.ledger.reading.losses import Losses
from keystead.ledger.reading.report import ErrorType, VerifyError, VerifyReport
from keystead.ledger.reading.runs import Run
from keystead.ledger.reading.sessions import OpenSession
from keystead.ledger.tlog.checkpoint import Checkpoint, SignedCheckpoint

_MOST_STEPS: Final = MAX_EPOCHS
"""Epochs that are gone through for records that then prove not to be sealed: what anybody writes costs no more."""


class Trust(Protocol):
    """What a reader trusts; see ``TrustPolicy``."""

    @property
    def stream(self) -> str:
        """The stream's name."""

    def session_key(self, session: Session) -> bytes | None:
        """Return a session's key, None where tags are not to be checked.

        Raises:
            InvalidSignatureError: who sealed it is not trusted, or the wrapped key is not of this session.
            CouldNotVerifyError: the KMS could not be asked.
        """

    def checkpoint(self, note: bytes, time_ms: int) -> SignedCheckpoint | None:
        """Return a checkpoint of a trusted signer, None where nobody is asked to sign.

        Raises:
            InvalidSignatureError: it is not one.
        """


class StreamChecker:
    """Checks one stream.

    Args:
        trust: whose keys count.
        since: a checkpoint that the reader has kept, of this stream and signed by it.
    """

    def __init__(self, trust: Trust, *, since: Checkpoint | None = None) -> None:
        self.report = VerifyReport(stream=trust.stream)
        self.trust = trust
        self.number = 0
        self.tag = NO_TAG
        self.time_ms = 0
        self.session: OpenSession | None = None
        self.losses = Losses(self)
        self.file: LogFile
        self.path = ""
        self.line = self.offset = 0
        self._since = since
        self._tree = Frontier()
        self._leaves: list[bytes] = []
        self._is_lost = False
        self._is_root_known = True
        self._file_number = 0
        self.has_unproven = False
        self._spent = 0
        self._controls = Controls(self)

    def check(self, files: Iterable[LogFile], *, is_whole: bool = False, expect_closed: bool = False) -> VerifyReport:
        """Follow the stream through ``files``, in their order.

        Args:
            is_whole: the first of them has to be the stream's, unless the log says that earlier ones were removed.
            expect_closed: the stream was closed.

        Raises:
            CouldNotVerifyError: a KMS could not be asked, or ``since`` lies before the first file.
            StorageOperationError: a file cannot be read.
        """
        self._reached()
        for file in files:
            self._check_file(file)
        self.root()
        self.losses.finish()
        self._controls.finish(is_whole=is_whole, expect_closed=expect_closed)
        if self._since is not None:
            self.find(
                ErrorType.ROLLED_BACK,
                f"the log ends before record {self._since.size}, which a checkpoint that was kept vouches for",
            )
        self.report.size = self.number
        return self.report

    def find(self, kind: ErrorType, message: str, *, line: int | None = None, offset: int | None = None) -> None:
        """Take a finding, where the reader is unless told otherwise."""
        where = (self.line if line is None else line, self.offset if offset is None else offset)
        self.report.add(VerifyError(kind, message, self.path, *where, self.number))

    def root(self) -> bytes | None:
        """Return the root over all records so far; None where one of them is not as it was."""
        self._flush()
        return self._tree.root() if self._is_root_known else None

    def vouch(self, checkpoint: Checkpoint) -> None:
        """Note a good checkpoint; of one over fewer records, which took its time, there is nothing to note."""
        if checkpoint.size >= self.report.vouched:
            self.report.vouched, self.report.checkpoint = checkpoint.size, checkpoint

    def _check_file(self, file: LogFile) -> None:
        if self.report.files:
            self._controls.ended_file()
            self.losses.end_file()
        self.file, self.path, self.line, self.offset = file, str(file.path), 1, 0
        self.report.files += 1
        batches = file.batches()
        batch = next(batches, None)
        if batch is None:
            self.find(ErrorType.TRUNCATED, "the file is empty")
            return
        if not self._begin_file(batch):
            return
        at = 1
        while batch is not None:
            following = next(batches, None)
            self._check_batch(batch, at, following)
            batch, at = following, 0
        self._end_file(file)

    def _begin_file(self, batch: Batch) -> bool:
        """Take a file's first record; return whether the rest can be followed."""
        try:
            record, header = FileHeader.of_line(batch.lines[0])
            if not batch.whole:
                raise MalformedRecordError("half a record")
            tree = Frontier(record.number, header.roots)
        except (MalformedRecordError, InvalidInputError):
            self.find(ErrorType.MALFORMED, "the file does not begin as a log does; nothing in it could be checked")
            return False
        if header.stream != self.trust.stream:
            told = f"the file says it is of {header.stream}; the policy is for {self.trust.stream} (wrong --policy?)"
            self.find(ErrorType.REPLACED, told)
            return False
        self._join(record, header, tree)
        self._controls.begin_file()
        key = self._key_of(header.session)
        self.report.sessions += self.session is None or self.session.told.id != header.session.id
        self.session, self.tag, self._is_lost = OpenSession.begin(header.session, header.stream, key), header.tag, False
        if self._is_sealed(record):
            self._accept(batch.lines[0], record)
        else:
            self.find(ErrorType.REPLACED, "the file's first record is not sealed by the session it names")
            self._adopt(batch.lines[0], record)
        return True

    def _join(self, record: Record, header: FileHeader, tree: Frontier) -> None:
        """See that a file begins where the one before ended, and go on from what it says."""
        self._flush()
        follows = self.report.files > 1
        if follows and header.file != self._file_number + 1:
            self._controls.gap(range(self._file_number + 1, header.file), self.number, record.number)
        elif follows and (record.number != self.number or (self._is_root_known and header.roots != self._tree.roots)):
            kind = ErrorType.TRUNCATED if record.number > self.number else ErrorType.REPLACED
            self.find(kind, f"the file follows record {record.number}, and the one before it ends at {self.number}")
        elif follows and header.tag != self._tag_for(header.session):
            self.find(ErrorType.REPLACED, "the file follows another last record than the one before it has")
        elif not follows:
            self.report.first = record.number
            self._controls.starts_at(header.file)
            if self._since is not None and self._since.size < record.number:
                raise CouldNotVerifyError(
                    f"the checkpoint that was kept is of {self._since.size} records, and the first file begins at "
                    f"{record.number}: give the files before it as well"
                )
        self.number, self._tree, self._is_root_known, self._file_number = record.number, tree, True, header.file
        if not follows:
            self._reached()

    def _tag_for(self, session: Session) -> bytes | None:
        """Return what stands for the last tag where ``session`` goes on, None where that cannot be."""
        if self.session is None or self.session.told.id != session.id or self.session.told.epoch == session.epoch:
            return self.tag
        try:
            return self.session.at_epoch(session.epoch, self.number, self.tag)[1]
        except MalformedRecordError:
            return None

    def _key_of(self, session: Session) -> bytes | None:
        try:
            key = self.trust.session_key(session)
        except InvalidSignatureError as exc:
            self.find(ErrorType.UNTRUSTED, str(exc))
            return None
        # By its tags alone such a record may be anybody's.
        self.has_unproven = self.has_unproven or key is None
        return key

    def _end_file(self, file: LogFile) -> None:
        if file.is_damaged:
            self.find(ErrorType.MODIFIED, "the compressed file is damaged: what follows could not be read")

    def _check_batch(self, batch: Batch, at: int, following: Batch | None) -> None:
        # The last line of a file has to have its end, or it is what a crash left of one.
        lines, whole = batch.lines, batch.whole
        counted, offset = 0, batch.offset
        while at < len(lines):
            if at < whole and not self._controls.is_waiting:
                at = self._take(lines, at, whole)
                if at == len(lines):
                    break
            # Added up once: a file full of line ends must not take as long as it is long, times as long.
            offset += sum(map(len, lines[counted:at])) + at - counted
            counted = at
            self.line, self.offset = batch.line + at, offset
            if at < whole:
                after = lines[at + 1 : at + 2] or (following.lines[:1] if following is not None else [])
                self._look(lines[at], after[0] if after else None)
            else:
                self.losses.take_junk(lines[at])
            at += 1

    def _take(self, lines: list[bytes], at: int, end: int) -> int:
        """Take records of the application for as long as nothing is unusual; return where that ends."""
        session = self.session
        if session is None or session.tagger is None or self._is_lost or self.losses.junk is not None:
            return at
        if self._since is not None:
            # So that the root is looked at just there.
            end = min(end, at + self._since.size - self.number)
        begun = at
        run = Run(self.number, self.tag, self.time_ms, self._tree, self._leaves)
        at += run.take(lines[at:end], session, session.tagger)
        self.number, self.tag, self.time_ms = run.number, run.tag, run.time_ms
        self.report.records_checked += at - begun
        if at > begun:
            self._controls.took_records()
            self._reached()
        return at

    def _look(self, line: bytes, after: bytes | None) -> None:
        """Look at a line that is not the common record, or not what it should be."""
        try:
            record = parse_line(line)
        except MalformedRecordError:
            self.losses.take_junk(line)
            return
        if self._is_sealed(record):
            self._accept(line, record)
        elif self.losses.was_left():
            self.losses.take_junk(line)
        elif record.number < self.number:
            self.report.records_invalid += 1
            self.losses.take_earlier(record)
        elif after is not None and self._would_follow(after):
            self.report.records_invalid += 1
            self.losses.take_inserted(record)
        else:
            self.losses.take_changed(record)
            self._adopt(line, record)

    def _is_sealed(self, record: Record) -> bool:
        """Whether ``record`` is the next one; moves on to the session or epoch that it begins."""
        session = self.session
        if record.number != self.number or session is None:
            return False
        steps = 0
        try:
            tag, following = self.tag, session
            if record.kind == Kind.EPOCH:
                epoch = integer(parse_payload(record.payload), "epoch")
                steps = max(0, min(epoch, MAX_EPOCHS) - session.told.epoch)
                self._spent += steps
                if self._spent > _MOST_STEPS:
                    return False
                following, tag = session.at_epoch(epoch, self.number, tag)
            elif record.kind == Kind.SESSION:
                told = Session.of(parse_payload(record.payload))
                if told.epoch:
                    return False
                following = OpenSession.begin(told, self.trust.stream, self._key_of(told))
        except MalformedRecordError:
            return False
        # Without the key, or the tag before, there is nothing to check it by.
        is_blind = following.tagger is None or self._is_lost
        found = stated_tag(record) if is_blind else following.seals(record, tag)
        if found is None:
            return False
        self._spent -= steps
        self.session, self.tag = following, found
        return True

    def _would_follow(self, line: bytes) -> bool:
        try:
            record = parse_line(line)
        except MalformedRecordError:
            return False
        is_next = record.number == self.number and self.session is not None and not self._is_lost
        return is_next and self.session is not None and self.session.seals(record, self.tag) is not None

    def _accept(self, line: bytes, record: Record) -> None:
        """Take a record that is sealed as it should be."""
        self.losses.settle_junk(record)
        self._is_lost = False
        self._controls.before(record)
        session = self.session
        if session is not None and record.time_ms != self.time_ms:
            if record.time_ms < self.time_ms:
                self.find(ErrorType.TIME, "the record's time is before that of the one before it")
            elif not session.low_ms <= record.time_ms <= session.high_ms:
                self.find(ErrorType.TIME, "the record's time is not in the epoch that it is sealed in")
        if record.kind == Kind.CHECKPOINT:
            self._controls.checkpoint(record)
        self._add(line, record)
        self._controls.after(record)
        self._reached()

    def _adopt(self, line: bytes, record: Record) -> None:
        """Take a record as it stands although it is not sealed as it should be, so that the next one can be checked."""
        self.report.records_invalid += 1
        tag = stated_tag(record)
        self._is_lost, self._is_root_known = tag is None, False
        self.tag = tag or NO_TAG
        self._add(line, record)

    def _add(self, line: bytes, record: Record) -> None:
        self._leaves.append(leaf_hash(line))
        self.number = record.number + 1
        self.time_ms = max(self.time_ms, record.time_ms)
        self.report.records_checked += 1

    def _flush(self) -> None:
        if self._leaves:
            self._tree.extend(self._leaves)
            self._leaves.clear()

    def _reached(self) -> None:
        """Compare the root with the checkpoint that was kept, once the log is as long."""
        if self._since is None or self.number < self._since.size:
            return
        since, self._since = self._since, None
        root = self.root()
        if self.number > since.size or (root is not None and root != since.root):
            self.find(ErrorType.ROLLED_BACK, "the log is no continuation of the checkpoint that was kept")
        elif root is not None:
            self.vouch(since)
