"""Where a stream ended, as its files have it: nothing else is asked, so that nothing beside them can be wrong.

Who writes has no key of earlier sessions, and checks no tags: that is the reader's part.
"""

from __future__ import annotations

import contextlib
import re
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Final

from keystead.crypto.merkle import BATCH, Frontier
from keystead.errors import ConfigurationError, InvalidInputError
from keystead.ledger.format.records import (
    FileHeader,
    Kind,
    MalformedRecordError,
    Record,
    Session,
    closing,
    parse_line,
    parse_payload,
    stated_tag,
    text,
)
from keystead.ledger.format.tags import NO_TAG
from keystead.ledger.reading.lines import LogFile

# Neither goes back over what it has read: the end of a log may be anything, and as long as a record.
_STRING: Final = re.compile(rb'"(?:[^"\\]++|\\.)*+"', re.DOTALL)
_WHOLE_STRINGS: Final = re.compile(rb'(?:[^"]++|"(?:[^"\\]++|\\.)*+")*+', re.DOTALL)


@dataclass(frozen=True, slots=True)
class LastState:
    """Where a file ended.

    Attributes:
        file: its number.
        first: the number of its first record.
        tree: over all records of the stream so far.
        tag, time_ms: of the last record.
        is_closed: the writer closed the stream.
        goes_on: the writer closed the file, and the stream goes on in another.
        torn: bytes that a crash left, and their SHA-256 in hex: behind the last record, with the beginning of a session
            before them that was broken off itself.
        has_end: whether the last line has an end.
        size: of the file, in bytes.
        session: the last one in the file that has a key.
    """

    file: int
    first: int
    tree: Frontier
    tag: bytes
    time_ms: int
    is_closed: bool
    goes_on: bool
    torn: tuple[int, str]
    has_end: bool
    size: int
    session: Session | None


def last_state(path: Path, stream: str) -> LastState:
    """Return where a file ended.

    Raises:
        ConfigurationError: it is no file of this stream, so that nothing may be written behind it.
        StorageOperationError: it cannot be read.
    """
    scan: _Scan | None = None
    file = LogFile(path)
    for batch in file.batches():
        offset = batch.offset
        for index, line in enumerate(batch.lines):
            has_end = batch.has_end or index < len(batch.lines) - 1
            if scan is None:
                scan = _Scan(line if index < batch.whole else b"", stream, path)
            else:
                scan.take(line, offset, has_end=has_end, is_piece=batch.is_piece)
            offset += len(line) + has_end
    if scan is None:
        raise ConfigurationError(f"{path} is empty, which no log is: move it away, and see what emptied it")
    return scan.state(file)


def span_of(path: Path, stream: str) -> dict[str, int]:
    """Return the numbers of a file's first and last record; errors as ``last_state``."""
    state = last_state(path, stream)
    return {"first": state.first, "last": state.tree.size - 1}


class _Scan:
    def __init__(self, first: bytes, stream: str, path: Path) -> None:
        try:
            record = parse_line(first)
            header = FileHeader.of(parse_payload(record.payload))
            self._tree = Frontier(record.number, header.roots)
        except (MalformedRecordError, InvalidInputError):
            raise ConfigurationError(f"{path} is no log of Keystead; give the log another path") from None
        if header.stream != stream:
            raise ConfigurationError(f"{path} is of the stream {header.stream!r}, not {stream!r}; give it another path")
        self._file = header.file
        self._first = self._number = record.number
        self._leaves: list[bytes] = []
        self._torn_from: int | None = None
        # Where a session has begun, or what was left before it, of which no recovery has told yet.
        self._opening_from: int | None = None
        self._end = len(first) + 1
        self._torn_end = 0
        self._has_end = True
        self._close: int | None = None
        self._is_closed = False
        self._handed_to: str | None = None
        self._session: Session | None = None
        self._note(header.session)
        self._add(first, record)

    def take(self, line: bytes, offset: int, *, has_end: bool, is_piece: bool) -> None:
        """Take a line behind the first."""
        self._has_end = has_end
        self._torn_end = offset + len(line)
        self._end = self._torn_end + has_end
        try:
            record = parse_line(line)
            is_whole = not is_piece and (has_end or _is_complete(record.payload))
            is_next = is_whole and record.number == self._number and stated_tag(record) is not None
        except MalformedRecordError:
            is_next = False
        # What a crash left may hold lines that read as records; only a session goes on behind it.
        if not is_next or (self._torn_from is not None and record.kind != Kind.SESSION):
            self._torn_from = offset if self._torn_from is None else self._torn_from
            return
        self._opening_from = self._opening_of(record, offset)
        self._torn_from = None
        self._add(line, record)

    def _opening_of(self, record: Record, offset: int) -> int | None:
        """Return where what the recovery behind ``record`` has to tell of begins, None where there is to be none."""
        if record.kind != Kind.SESSION:
            return None
        if self._torn_from is None and (self._is_stream_closed or self._is_handed_to(record)):
            return None
        begun = offset if self._torn_from is None else self._torn_from
        return begun if self._opening_from is None else self._opening_from

    def _is_handed_to(self, record: Record) -> bool:
        try:
            return Session.of(parse_payload(record.payload)).id == self._handed_to
        except MalformedRecordError:
            return False

    @property
    def _is_stream_closed(self) -> bool:
        return self._is_closed and self._close is None

    def _add(self, line: bytes, record: Record) -> None:
        self._leaves.append(sha256(b"\x00" + line).digest())
        if len(self._leaves) >= BATCH:
            self._tree.extend(self._leaves)
            self._leaves.clear()
        self._number += 1
        self._last = record
        self._handed_to = None
        if record.kind == Kind.REKEY:
            with contextlib.suppress(MalformedRecordError):
                self._handed_to = text(parse_payload(record.payload), "session")
        if record.kind == Kind.SESSION:
            with contextlib.suppress(MalformedRecordError):
                self._note(Session.of(parse_payload(record.payload)))
        if record.kind == Kind.CLOSE:
            try:
                self._close, self._is_closed = closing(parse_payload(record.payload)), True
            except MalformedRecordError:
                self._is_closed = False
        elif record.kind != Kind.CHECKPOINT:
            self._close, self._is_closed = None, False

    def _note(self, session: Session) -> None:
        self._session = session if session.key is not None else self._session

    def state(self, file: LogFile) -> LastState:
        """Return where the file ended."""
        self._tree.extend(self._leaves)
        torn = (0, sha256(b"").hexdigest())
        begun = self._torn_from if self._opening_from is None else self._opening_from
        if begun is not None:
            torn = (self._torn_end - begun, file.digest(begun, self._torn_end))
        is_whole = self._torn_from is None
        return LastState(
            file=self._file,
            first=self._first,
            tree=self._tree,
            tag=stated_tag(self._last) or NO_TAG,
            time_ms=self._last.time_ms,
            is_closed=self._is_stream_closed and is_whole,
            # A file that has ended has the end of its last line: another one begins nowhere else.
            goes_on=self._is_closed and self._close is not None and is_whole and self._has_end,
            torn=torn,
            has_end=self._has_end,
            size=self._end,
            session=self._session,
        )


def _is_complete(payload: bytes) -> bool:
    """Whether a payload is a whole JSON value, where it is the beginning of one, or one.

    The beginning of a line may read as a line: what an application writes may hold what looks like the end of one.
    """
    if _WHOLE_STRINGS.fullmatch(payload) is None:
        return False
    rest = _STRING.sub(b"", payload)
    return sum(map(rest.count, (b"{", b"["))) == sum(map(rest.count, (b"}", b"]")))
