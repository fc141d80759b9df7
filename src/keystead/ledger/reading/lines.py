"""Reading a log's files: lines in batches, with constant memory, plain or compressed."""

from __future__ import annotations

import gzip
import os
import stat
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import IO, Final, cast

from keystead.errors import StorageOperationError
from keystead.ledger.format.records import MAX_LINE_BYTES, FileHeader, Record

BLOCK_BYTES: Final = 1 << 18
_FIRST_BYTES: Final = 1 << 13
"""What is read at first from an offset, and then twice as much each time: for one line, or some, a block is much."""
_GZIP: Final = b"\x1f\x8b"


@dataclass(slots=True)
class Batch:
    """Lines that follow one another.

    Attributes:
        line: the first one's number in its file, from 1.
        offset: where it begins.
        lines: without their ends.
        has_end: whether the last line has one; where it has none it is the file's end, or a piece.
        is_piece: the one line is a piece of a line that is too long to be a record.
    """

    line: int
    offset: int
    lines: list[bytes]
    has_end: bool = True
    is_piece: bool = False

    @property
    def whole(self) -> int:
        """How many of the lines are whole, so that they may be records."""
        return 0 if self.is_piece else len(self.lines) - (not self.has_end)


class LogFile:
    """One file of a log, for reading from its beginning.

    A line that is longer than any record comes in pieces, none of which is a record; a compressed file that is damaged
    ends where the damage begins.

    Args:
        progress: is told how many bytes of the file, compressed or not, were read since the last time.
        first: what the file begins with, where another may take its place while it is read.
        later: what it is called then, one after the other; compressed, unless something else is said.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        progress: Callable[[int], object] | None = None,
        *,
        first: bytes = b"",
        later: Sequence[Path] = (),
    ) -> None:
        self.path = Path(path)
        self.is_damaged = False
        self._progress = progress
        self._told = 0
        self._first = first
        self._names = (self.path, *(later or (self.path.with_name(f"{self.path.name}.gz"),)))

    def batches(self) -> Iterator[Batch]:
        """Yield the lines of the file.

        Raises:
            StorageOperationError: it cannot be read.
        """
        line, offset, rest, is_within = 1, 0, b"", False
        with self._open() as file:
            while block := self._read(file):
                content = rest + block
                lines = content.split(b"\n")
                rest = lines.pop()
                end = offset + len(content) - len(rest)
                # Only the first one may have come together from blocks.
                if lines and (is_within or len(lines[0]) > MAX_LINE_BYTES):
                    is_within = False
                    yield Batch(line, offset, lines[:1], is_piece=True)
                    line, offset = line + 1, offset + len(lines[0]) + 1
                    del lines[0]
                if lines:
                    yield Batch(line, offset, lines)
                    line, offset = line + len(lines), end
                if len(rest) > MAX_LINE_BYTES:
                    is_within = True
                    yield Batch(line, offset, [rest], has_end=False, is_piece=True)
                    offset += len(rest)
                    rest = b""
        if rest:
            yield Batch(line, offset, [rest], has_end=False, is_piece=is_within)

    def beginning(self) -> tuple[Record, FileHeader]:
        """Return the first record, and what it says of the file.

        Raises:
            MalformedRecordError: it does not begin as a log does.
            StorageOperationError: it cannot be read.
        """
        _, line = next(self.lines_from(0), (0, b""))
        return FileHeader.of_line(line)

    @property
    def is_compressed(self) -> bool:
        """Whether the file is compressed; errors as ``batches``."""
        with self._open() as file:
            return isinstance(file, gzip.GzipFile)

    def lines_from(self, offset: int) -> Iterator[tuple[int, bytes]]:
        """Yield the lines from an offset on, each with its own; the last one only if it has an end.

        Of a line that is longer than any record pieces come, each so long too. Errors as ``batches``.
        """
        rest, size, is_within = b"", _FIRST_BYTES, False
        with self._open() as file:
            file.seek(offset)
            while block := self._read(file, size):
                size = min(2 * size, BLOCK_BYTES)
                *lines, rest = (rest + block).split(b"\n")
                for line in lines:
                    # What is left of a long line may read as a record, and is none.
                    if not is_within:
                        yield offset, line
                    is_within = False
                    offset += len(line) + 1
                if len(rest) > MAX_LINE_BYTES:
                    is_within = True
                    yield offset, rest
                    offset += len(rest)
                    rest = b""

    def digest(self, start: int, end: int) -> str:
        """Return the SHA-256 of a part of the file, in hex."""
        digest = sha256()
        with self._open() as file:
            file.seek(start)
            remaining = end - start
            while remaining > 0 and (block := file.read(min(BLOCK_BYTES, remaining))):
                digest.update(block)
                remaining -= len(block)
        return digest.hexdigest()

    def _open(self) -> IO[bytes]:
        failure = "there is no such file"
        for path in self._names:
            try:
                file = _opened(path)
            except FileNotFoundError:
                continue
            except OSError as exc:
                failure = exc.strerror or type(exc).__name__
                break
            if not self._first or self._begins_as_it_should(file):
                return file
            file.close()
        raise StorageOperationError(f"{self.path} cannot be read: {failure}")

    def _begins_as_it_should(self, file: IO[bytes]) -> bool:
        try:
            is_it = file.read(len(self._first)) == self._first
            file.seek(0)
        except (OSError, EOFError, zlib.error):
            return False
        return is_it

    def _read(self, file: IO[bytes], size: int = BLOCK_BYTES) -> bytes:
        try:
            block = file.read(size)
            if self._progress is not None:
                at = os.lseek(file.fileno(), 0, os.SEEK_CUR)
                self._progress(max(0, at - self._told))
                self._told = at
            return block
        except (EOFError, zlib.error, gzip.BadGzipFile):
            self.is_damaged = True
            return b""
        except OSError as exc:
            raise StorageOperationError(f"{self.path} cannot be read: {exc.strerror}") from None


def _opened(path: Path) -> IO[bytes]:
    # A pipe in its place would hold the reader up, and a device might never end.
    if not stat.S_ISREG(path.stat().st_mode):
        raise StorageOperationError(f"{path} is no regular file")
    file = path.open("rb")
    if file.read(len(_GZIP)) == _GZIP:
        file.close()
        return cast(IO[bytes], gzip.open(path, "rb"))
    file.seek(0)
    return file
