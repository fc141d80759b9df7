"""An index beside a log's file, so that one record among many is proved without reading them all.

It is a cache: made anew where it is absent or does not fit, and never believed. Whoever uses it checks what it gives
against a signed root. Layout: magic, five unsigned 64-bit numbers (first record, records of the stream up to its end,
bytes that were read, offset of the last checkpoint or zero, number of blocks), the offsets of the blocks of 256
records, then the roots of complete subtrees, of each level from 8 on as many as there are.
"""

from __future__ import annotations

import contextlib
import os
from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from struct import Struct
from struct import error as struct_error
from typing import Final

from keystead.crypto.merkle import HASH_SIZE, node_hash, root_of
from keystead.errors import InvalidInputError
from keystead.ledger.format.records import (
    FileHeader,
    MalformedRecordError,
    Record,
    parse_line,
    parse_payload,
    reads_whole,
)
from keystead.ledger.reading.lines import LogFile

BLOCK_LEVEL: Final = 8
BLOCK: Final = 1 << BLOCK_LEVEL
_MAGIC: Final = b"keystead log index 1\n"
_HEAD: Final = Struct(">5Q")


@dataclass(slots=True)
class LogIndex:
    """The index of one file, and with it the subtrees over the stream's records up to the file's end.

    Attributes:
        first: the number of the file's first record.
        size: how many records the stream has up to the end of what was read.
        end: bytes of the file that were read.
        checkpoint_at: where the last checkpoint's record begins, 0 where there is none.
    """

    path: Path
    header: FileHeader
    first: int
    size: int = 0
    end: int = 0
    checkpoint_at: int = 0
    _offsets: array[int] = field(default_factory=lambda: array("Q"))
    _levels: list[bytearray] = field(default_factory=lambda: [bytearray()])
    _leaves: dict[int, list[bytes]] = field(default_factory=dict)
    _before: dict[tuple[int, int], bytes] = field(default_factory=dict)

    @classmethod
    def open(cls, path: str | os.PathLike[str], *, is_cached: bool = True) -> LogIndex:
        """Return the index of a file: as it is beside it, brought up to date, or made anew.

        Raises:
            InvalidInputError: the file is none of a log.
            StorageOperationError: it cannot be read.
        """
        path = Path(path)
        _, first_line = next(LogFile(path).lines_from(0), (0, b""))
        try:
            record = parse_line(first_line)
            header = FileHeader.of(parse_payload(record.payload))
        except MalformedRecordError:
            raise InvalidInputError(f"{path} is no file of a log") from None
        made = cls(path, header, record.number)
        made._before = _subtrees(record.number, header.roots)
        if is_cached:
            made._load()
        known = made.size
        made._scan()
        if made.size - known > BLOCK:
            made._save()
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
        if level == 0:
            return self._leaf(number)
        if start >= self.first and level >= BLOCK_LEVEL and level - BLOCK_LEVEL < len(self._levels):
            at = (number - _first_of(self.first, level)) * HASH_SIZE
            found = bytes(self._levels[level - BLOCK_LEVEL][at : at + HASH_SIZE])
            if len(found) == HASH_SIZE:
                return found
        return node_hash(self.subtree(level - 1, 2 * number), self.subtree(level - 1, 2 * number + 1))

    def line(self, number: int) -> bytes:
        """Return a record's line, without its end.

        Raises:
            InvalidInputError: it is not in this file.
        """
        if self.first <= number < self.size:
            for found, line in self._records_of(number >> BLOCK_LEVEL):
                if found == number:
                    return line
        raise InvalidInputError(f"the file {self.path.name} has records {self.first} to {self.size - 1}")

    def last_checkpoint(self) -> Record | None:
        """Return the record of the last checkpoint."""
        if not self.checkpoint_at:
            return None
        with contextlib.suppress(MalformedRecordError):
            _, line = next(LogFile(self.path).lines_from(self.checkpoint_at), (0, b""))
            return parse_line(line)
        return None

    def _leaf(self, number: int) -> bytes:
        block = number >> BLOCK_LEVEL
        leaves = self._leaves.get(block)
        if leaves is None:
            leaves = [sha256(b"\x00" + line).digest() for _, line in self._records_of(block)]
            self._leaves[block] = leaves
        at = number - max(block << BLOCK_LEVEL, self.first)
        if at >= len(leaves):
            raise InvalidInputError(f"the file {self.path.name} has no record {number}")
        return leaves[at]

    def _records_of(self, block: int) -> Iterator[tuple[int, bytes]]:
        """Yield the records of a block that are in this file, with their numbers."""
        at = block - _first_of(self.first, BLOCK_LEVEL)
        offset = self._offsets[at] if 0 <= at < len(self._offsets) else 0
        if offset and offset > self._offsets[-1]:
            raise InvalidInputError(f"the index of {self.path.name} is of another file")
        number = block << BLOCK_LEVEL if offset else self.first
        begin, end = block << BLOCK_LEVEL, min((block + 1) << BLOCK_LEVEL, self.size)
        for _, line in _records(self.path, offset, number):
            if number >= end:
                return
            if number >= begin:
                yield number, line
            number += 1

    def _scan(self) -> None:
        """Read what is behind what is known."""
        number = max(self.size, self.first)
        leaves: list[bytes] = []
        begins_whole = self.end > 0 or self.first % BLOCK == 0
        for offset, line in _records(self.path, self.end, number):
            if number % BLOCK == 0:
                leaves, begins_whole = [], True
                self._offsets.append(offset)
            leaves.append(sha256(b"\x00" + line).digest())
            if b',"k":"checkpoint","d":' in line[:64]:
                self.checkpoint_at = offset
            number += 1
            if number % BLOCK == 0 and begins_whole:
                self._add_block(root_of(leaves), number)
        self.size = number

    def _add_block(self, root: bytes, number: int) -> None:
        """Add a block's root, and those of the subtrees that it completes."""
        level, at = BLOCK_LEVEL, (number >> BLOCK_LEVEL) - 1
        while True:
            if level - BLOCK_LEVEL == len(self._levels):
                self._levels.append(bytearray())
            nodes = self._levels[level - BLOCK_LEVEL]
            nodes += root
            if at % 2 == 0 or (at - 1) < _first_of(self.first, level):
                return
            root = node_hash(bytes(nodes[-2 * HASH_SIZE : -HASH_SIZE]), root)
            level, at = level + 1, at >> 1

    def _load(self) -> None:
        """Take what the file beside it says, if it fits; the last block is read again."""
        with contextlib.suppress(OSError, ValueError, IndexError, struct_error):
            content = memoryview(self._cache.read_bytes())
            first, size, end, checkpoint_at, blocks = _HEAD.unpack_from(content, len(_MAGIC))
            is_ours = bytes(content[: len(_MAGIC)]) == _MAGIC and first == self.first and blocks > 1
            if not is_ours or LogFile(self.path).is_compressed:
                return
            at = len(_MAGIC) + _HEAD.size
            offsets = array("Q", bytes(content[at : at + 8 * blocks]))
            if max(offsets[-1], end, checkpoint_at) > self.path.stat().st_size:
                return
            at += 8 * blocks
            begun = _first_of(first, BLOCK_LEVEL)
            levels, level = [], BLOCK_LEVEL
            while at < len(content):
                count = ((begun + blocks - 1) >> (level - BLOCK_LEVEL)) - _first_of(first, level)
                levels.append(bytearray(content[at : at + count * HASH_SIZE]))
                if count <= 0 or len(levels[-1]) != count * HASH_SIZE:
                    return
                at += count * HASH_SIZE
                level += 1
            # All but the last block are whole; that one is read again from its beginning.
            self._offsets, self._levels = offsets[:-1], levels or [bytearray()]
            self.size, self.end, self.checkpoint_at = (begun + blocks - 1) << BLOCK_LEVEL, offsets[-1], checkpoint_at
            if self.size > size:
                raise ValueError

    def _save(self) -> None:
        blocks = len(self._offsets)
        if blocks < 2 or LogFile(self.path).is_compressed:
            return
        whole = _first_of(self.first, BLOCK_LEVEL) + blocks - 1
        parts = [_MAGIC, _HEAD.pack(self.first, self.size, self._offsets[-1], self.checkpoint_at, blocks)]
        parts.append(self._offsets.tobytes())
        for level, nodes in enumerate(self._levels, BLOCK_LEVEL):
            count = (whole >> (level - BLOCK_LEVEL)) - _first_of(self.first, level)
            if count <= 0:
                break
            parts.append(bytes(nodes[: count * HASH_SIZE]))
        # A cache that cannot be written is no error.
        with contextlib.suppress(OSError):
            staged = self._cache.with_name(f"{self._cache.name}.{os.getpid()}.new")
            staged.write_bytes(b"".join(parts))
            os.replace(staged, self._cache)

    @property
    def _cache(self) -> Path:
        return self.path.with_name(f"{self.path.name}.index")


def _records(path: Path, offset: int, number: int) -> Iterator[tuple[int, bytes]]:
    """Yield records from ``number`` on, with their offsets; what a crash left between them is passed over."""
    is_torn = False
    for begin, line in LogFile(path).lines_from(offset):
        # Not taken apart: that takes most of the time of a proof, which is checked against a signed root anyway.
        if not line.startswith(b'{"n":%d,' % number) or not reads_whole(line):
            is_torn = True
        elif not is_torn or b',"k":"session","d":' in line[:64]:
            is_torn = False
            yield begin, line
            number += 1


def _first_of(first: int, level: int) -> int:
    """Return the number of the first subtree of a level that begins at ``first`` or behind it."""
    return -(-first >> level)


def _subtrees(size: int, roots: tuple[bytes, ...]) -> dict[tuple[int, int], bytes]:
    """Return the complete subtrees over the first ``size`` records, by level and number."""
    found, at, remaining = {}, 0, iter(roots)
    for level in reversed(range(size.bit_length())):
        if size >> level & 1:
            found[level, at >> level] = next(remaining, b"")
            at += 1 << level
    return found
