"""What is wrong with a line that is not the next record: changed, missing before it, twice, elsewhere, or no record."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from keystead.errors import StorageOperationError
from keystead.ledger.format.records import Kind, MalformedRecordError, Record, parse_line
from keystead.ledger.reading.lines import LogFile
from keystead.ledger.reading.report import ErrorType

if TYPE_CHECKING:
    from keystead.ledger.reading.checking import StreamChecker

_MAX_GAPS: Final = 1000
_MAX_SESSIONS: Final = 10_000


@dataclass(slots=True)
class Junk:
    """Bytes that are no record, from ``offset`` to ``end``; what they are is known by what follows."""

    line: int
    offset: int
    end: int


class Losses:
    """Names what was done to a log, as far as its lines tell."""

    def __init__(self, checker: StreamChecker) -> None:
        self._checker = checker
        self._missing: list[range] = []
        self._early: dict[int, tuple[int, int]] = {}
        self._resumed: dict[int, int] | None = None
        self.junk: Junk | None = None

    def was_left(self) -> bool:
        """Whether a crash left the line where the reader is, as the log says further on.

        A disk may lose the middle of what was written last, so that records stand behind it which are none any more.
        """
        checker = self._checker
        if self._resumed is None:
            self._resumed = _resumed(checker.file)
        return self._resumed.get(checker.number, -1) > checker.offset

    def take_junk(self, line: bytes) -> None:
        """Take a line that is no record."""
        checker = self._checker
        end = checker.offset + len(line)
        if self.junk is None:
            self.junk = Junk(checker.line, checker.offset, end)
        else:
            self.junk.end = end

    def take_opening(self, opening: Junk) -> None:
        """Take the first line of a session that was broken off with it: what follows tells of it too."""
        if self.junk is None:
            self.junk = opening
        elif opening.offset < self.junk.offset:
            self.junk = Junk(opening.line, opening.offset, self.junk.end)
        else:
            self.junk.end = max(self.junk.end, opening.end)

    def drop_junk(self) -> Junk | None:
        """Return what is no record, once it has been accounted for."""
        junk, self.junk = self.junk, None
        return junk

    def settle_junk(self, record: Record) -> None:
        """Say what lines that are no records were, now that ``record`` follows; of a crash the log says it itself."""
        tells_itself = record.kind in {Kind.SESSION, Kind.RECOVERY} and record.number == self._checker.number
        if tells_itself or (junk := self.drop_junk()) is None:
            return
        where = {"line": junk.line, "offset": junk.offset}
        if record.number > self._checker.number:
            self._checker.find(ErrorType.MODIFIED, "a record is damaged", **where)
        else:
            self._checker.find(ErrorType.MALFORMED, "this is no record", **where)

    def end_file(self) -> None:
        """Say what stands behind a file's last record, now that another file follows."""
        self._resumed = None
        if (junk := self.drop_junk()) is not None:
            where = {"line": junk.line, "offset": junk.offset}
            self._checker.find(ErrorType.TRUNCATED, "the file ends in what is no record", **where)

    def take_inserted(self, record: Record) -> None:
        """Take a record that the next one does not know of: foreign, or before its place."""
        checker = self._checker
        if record.number > checker.number and len(self._early) < _MAX_GAPS:
            self._early[record.number] = (checker.line, checker.offset)
        else:
            checker.find(ErrorType.INSERTED, "a record that the log's writer has not sealed")

    def finish(self) -> None:
        """Say what was inserted with the number of a record that stands in its own place."""
        for line, offset in self._early.values():
            message = "a record that the log's writer has not sealed"
            self._checker.find(ErrorType.INSERTED, message, line=line, offset=offset)

    def take_earlier(self, record: Record) -> None:
        """Take a record whose number has passed."""
        for index, gap in enumerate(self._missing):
            if record.number in gap:
                parts = (range(gap.start, record.number), range(record.number + 1, gap.stop))
                self._missing[index : index + 1] = [part for part in parts if part]
                message = f"record {record.number} stands behind ones that came after it"
                self._checker.find(ErrorType.REORDERED, message)
                return
        self._checker.find(ErrorType.DUPLICATED, f"a record of number {record.number} stood here before")

    def take_changed(self, record: Record) -> None:
        """Take a record that was changed, or that others are missing before."""
        self.settle_junk(record)
        checker = self._checker
        if record.number == checker.number:
            checker.find(ErrorType.MODIFIED, "the record is not as it was sealed")
            return
        gap = range(checker.number, record.number)
        for number in [each for each in self._early if each in gap]:
            line, offset = self._early.pop(number)
            message = f"record {number} stands before ones that came ahead of it"
            checker.find(ErrorType.REORDERED, message, line=line, offset=offset)
            if gap == range(number, number + 1):
                return
        told = f"record {gap[0]} is" if gap[0] == gap[-1] else f"records {gap[0]} to {gap[-1]} are"
        checker.find(ErrorType.MISSING, f"{told} not here")
        if len(self._missing) < _MAX_GAPS:
            self._missing.append(gap)


def _resumed(file: LogFile) -> dict[int, int]:
    """Return where sessions begin in a file, by the number of the record."""
    found: dict[int, int] = {}
    with contextlib.suppress(StorageOperationError):
        for offset, line in file.lines_from(0):
            if b',"k":"session","d":' not in line[:64] or len(found) >= _MAX_SESSIONS:
                continue
            with contextlib.suppress(MalformedRecordError):
                found[parse_line(line).number] = offset
    return found
