"""Reading what a log says, without a key and without checking anything: for people who look, and who follow it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from keystead.errors import InvalidInputError, StorageOperationError
from keystead.ledger.format.records import MalformedRecordError, Record, parse_line
from keystead.ledger.reading.files import LogFiles
from keystead.ledger.reading.lines import LogFile

_STEP_BYTES: Final = 1 << 16


class LogFollower:
    """Yields a log's records, from file to file; what is no record is passed over.

    Args:
        path: the file that is written, or one that has ended, alone.
        pause: waits for more. Called where the log ends; returns False to stop.

    Raises:
        InvalidInputError: there is no log.
        StorageOperationError: it cannot be read.
    """

    def __init__(self, path: str | os.PathLike[str], pause: Callable[[], bool] = lambda: False) -> None:
        self._path = Path(path)
        self._pause = pause
        self._is_alone = LogFiles.is_ended(self._path)

    def files(self) -> list[Path]:
        """Return the files that are there, in their order."""
        if self._is_alone:
            return [self._path]
        files = LogFiles(self._path)
        return [*files.ended().values(), *([files.path] if files.path.exists() else [])]

    def since(self, number: int) -> Iterator[Record]:
        """Yield the records from ``number`` on."""
        begin = None
        for file in self._some():
            at, first = _first(file)
            if begin is not None and first > number:
                break
            begin = at
        yield from (record for record in self._from(begin or 1, 0) if record.number >= number)

    def last(self, count: int) -> Iterator[Record]:
        """Yield the last ``count`` records of the application, the log's own between them, and what comes after."""
        for file in reversed(self._some()):
            found = _offsets_from_end(file, count)
            count -= len(found)
            number, offset = _first(file)[0], found[0] if found else (0 if count else _end(file))
            if count <= 0:
                break
            offset = 0
        yield from self._from(number, offset)

    def _some(self) -> list[Path]:
        files = self.files()
        if not files:
            raise InvalidInputError(f"{self._path} is no log, and no file of one that has ended stands beside it")
        return files

    def _from(self, number: int, offset: int) -> Iterator[Record]:
        """Yield the records of a file from an offset on, and of those that follow it."""
        while True:
            # Looked at before reading: then what is read is all that it will ever have.
            files = self._numbers()
            has_ended = any(at > number for at in files)
            if number in files:
                for begin, line in LogFile(files[number]).lines_from(offset):
                    offset = begin + len(line) + 1
                    try:
                        yield parse_line(line)
                    except MalformedRecordError:
                        continue
            if has_ended:
                number, offset = min(at for at in files if at > number), 0
            elif self._is_alone or not self._pause():
                return

    def _numbers(self) -> dict[int, Path]:
        """Return the files by number, with the one that is written."""
        if self._is_alone:
            return {_first(self._path)[0]: self._path}
        files = LogFiles(self._path)
        found = files.ended()
        try:
            current = _first(files.path)[0]
        except (InvalidInputError, StorageOperationError):
            return found
        # What has just ended is found by its new name.
        return {**{current: files.path}, **found} if current not in found else found


def _first(file: Path) -> tuple[int, int]:
    """Return the number of a file, and of its first record.

    Raises:
        InvalidInputError: it is none of a log.
    """
    try:
        record, header = LogFile(file).beginning()
    except MalformedRecordError:
        raise InvalidInputError(f"{file} is no file of a log") from None
    return header.file, record.number


def _end(file: Path) -> int:
    """Return where a file ends, as it is when it is not compressed."""
    if not LogFile(file).is_compressed:
        return file.stat().st_size
    return sum(len(line) + batch.has_end for batch in LogFile(file).batches() for line in batch.lines)


def _offsets_from_end(file: Path, count: int) -> list[int]:
    """Return where the last records of the application begin, at most ``count``."""
    if count <= 0:
        return []
    source = LogFile(file)
    size = 0 if source.is_compressed else file.stat().st_size
    step = _STEP_BYTES
    while True:
        begin = max(0, size - step)
        found = []
        lines = source.lines_from(begin)
        if begin:
            next(lines, None)  # half a line
        for offset, line in lines:
            try:
                if parse_line(line).kind is None:
                    found.append(offset)
            except MalformedRecordError:
                continue
        if len(found) >= count or not begin:
            return found[-count:]
        step *= 4
