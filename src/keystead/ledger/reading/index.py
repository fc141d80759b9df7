"""An index beside a log's file, so that one record among many is proved without reading them all.

It is a cache: made anew where it is absent or does not fit, and never believed. Whoever uses it checks what it gives
against a signed root.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Final

from keystead.crypto.merkle import complete_subtrees, node_hash, parents, root_of
from keystead.errors import InvalidInputError
from keystead.ledger.format.records import (
    FileHeader,
    MalformedRecordError,
    Record,
    parse_line,
    reads_whole,
)
from keystead.ledger.reading.index_file import BLOCK, BLOCK_LEVEL, Contents, first_of
from keystead.ledger.reading.lines import LogFile

_CHECKPOINT: Final = b',"k":"checkpoint","d":'
_SESSION: Final = b',"k":"session","d":'
_HEAD_BYTES: Final = 64
"""The kind of a record, if it has one, stands in so many of its first bytes."""


@dataclass(slots=True)
class LogIndex:
    """The index of one file, and with it the subtrees over the stream's records up to the file's end.

    Attributes:
        first: the number of the file's first record.
        size: how many records the stream has up to the end of what was read.
    """

    path: Path
    header: FileHeader
    first: int
    _contents: Contents
    size: int = 0
    _blocks: dict[int, list[list[bytes]]] = field(default_factory=dict)
    _before: dict[tuple[int, int], bytes] = field(default_factory=dict)

    @classmethod
    def open(cls, path: str | os.PathLike[str], *, is_cached: bool = True) -> LogIndex:
        """Return the index of a file: as it is beside it, brought up to date, or made anew.

        Raises:
            InvalidInputError: the file is none of a log.
            StorageOperationError: it cannot be read.
        """
        path = Path(path)
        try:
            record, header = LogFile(path).beginning()
        except MalformedRecordError:
            raise InvalidInputError(f"{path} is no file of a log") from None
        contents = Contents.load(path, record.number) if is_cached else Contents(record.number)
        made = cls(path, header, record.number, contents, _before=complete_subtrees(record.number, header.roots))
        made._scan()
        if made.size - contents.size > BLOCK:
            contents.save(path, made.size)
        return made

    def subtree(self, level: int, number: int) -> bytes:
        """Return the root of a complete subtree over records before ``size``.

        Raises:
            InvalidInputError: it is of files before this one, and no part of what this one says of them.
        """
        start, end = number << level, (number + 1) << level
        if end <= self.first:
            found = self._before.get((level, number))
            if found is None:
                raise InvalidInputError("the files before this one are needed for this proof")
            return found
        if start >= self.first:
            found = self._contents.node(level, number) if level >= BLOCK_LEVEL else self._node(level, number)
            if found is not None:
                return found
        if level == 0:
            raise InvalidInputError(f"the file {self.path.name} has no record {number}")
        return node_hash(self.subtree(level - 1, 2 * number), self.subtree(level - 1, 2 * number + 1))

    def line(self, number: int) -> bytes:
        """Return a record's line, without its end.

        Raises:
            InvalidInputError: it is not in this file.
        """
        line = self._read_block(number >> BLOCK_LEVEL, number) if self.first <= number < self.size else None
        if line is None:
            raise InvalidInputError(f"the file {self.path.name} has records {self.first} to {self.size - 1}")
        return line

    def last_checkpoint(self) -> Record | None:
        """Return the record of the last checkpoint."""
        if not self._contents.checkpoint_at:
            return None
        with contextlib.suppress(MalformedRecordError):
            _, line = next(LogFile(self.path).lines_from(self._contents.checkpoint_at), (0, b""))
            return parse_line(line)
        return None

    def _node(self, level: int, number: int) -> bytes | None:
        """Return the root of a subtree within a block, None where it is not whole in this file."""
        block = number >> (BLOCK_LEVEL - level)
        if block not in self._blocks:
            self._read_block(block)
        nodes = self._blocks[block][level]
        at = number - first_of(max(block << BLOCK_LEVEL, self.first), level)
        return nodes[at] if at < len(nodes) else None

    def _read_block(self, block: int, wanted: int = -1) -> bytes | None:
        """Read the records of a block, keep the subtrees over them, and return the line of one, if it is there."""
        contents, begin = self._contents, block << BLOCK_LEVEL
        offset = contents.offset(block)
        number, end = begin if offset else self.first, min(begin + BLOCK, self.size)
        found, leaves = None, []
        for _, line in _records(self.path, offset, number):
            if number >= end:
                break
            if number >= begin:
                leaves.append(sha256(b"\x00" + line).digest())
                found = line if number == wanted else found
            number += 1
        self._keep_block(block, leaves)
        return found

    def _keep_block(self, block: int, leaves: list[bytes]) -> None:
        levels, number = [leaves], max(block << BLOCK_LEVEL, self.first)
        for _ in range(BLOCK_LEVEL):
            # A block that begins within another file: a node that is not whole here has no part in the next level.
            levels.append(parents(levels[-1][number & 1 :]))
            number = (number + 1) >> 1
        self._blocks[block] = levels

    def _scan(self) -> None:
        """Read what is behind what is known."""
        contents = self._contents
        number = begun = max(contents.size, self.first)
        leaves: list[bytes] = []
        for offset, line in _records(self.path, contents.end, number):
            if number % BLOCK == 0:
                leaves, begun = [], number
                contents.add_offset(offset)
            leaves.append(sha256(b"\x00" + line).digest())
            if _CHECKPOINT in line[:_HEAD_BYTES]:
                contents.checkpoint_at = offset
            number += 1
            if number % BLOCK == 0 and len(leaves) == BLOCK:
                contents.add_block(root_of(leaves), number)
        self.size = number
        if leaves and number % BLOCK:
            self._keep_block(begun >> BLOCK_LEVEL, leaves)


def _records(path: Path, offset: int, number: int) -> Iterator[tuple[int, bytes]]:
    """Yield records from ``number`` on, with their offsets; what a crash left between them is passed over."""
    is_torn = False
    for begin, line in LogFile(path).lines_from(offset):
        # Not taken apart: that takes most of the time of a proof, which is checked against a signed root anyway.
        if not line.startswith(b'{"n":%d,' % number) or not reads_whole(line):
            is_torn = True
        elif not is_torn or _SESSION in line[:_HEAD_BYTES]:
            is_torn = False
            yield begin, line
            number += 1
