"""What an index holds of a log's file, and the file that it is kept in: see ``index``.

Layout: magic, five unsigned 64-bit numbers (first record, records of the stream up to its end, bytes that were read,
offset of the last checkpoint or zero, number of blocks), the offsets of the blocks of 256 records, then the roots of
complete subtrees, of each level from 8 on as many as there are. Offsets are as this machine writes numbers.
"""

from __future__ import annotations

import contextlib
import os
import weakref
from collections.abc import Iterator
from pathlib import Path
from struct import Struct
from typing import Final

from keystead.crypto.merkle import HASH_SIZE, node_hash
from keystead.errors import InvalidInputError
from keystead.ledger.reading.lines import LogFile
from keystead.runtime.files import replace_file

BLOCK_LEVEL: Final = 8
BLOCK: Final = 1 << BLOCK_LEVEL
_MAGIC: Final = b"keystead log index 1\n"
_HEAD: Final = Struct(">5Q")
_HEAD_END: Final = len(_MAGIC) + _HEAD.size
_OFFSET: Final = Struct("Q")


class Contents:
    """Where the blocks of a file's records begin, and the subtrees over them. What was kept is read where it is needed.

    Attributes:
        first: the number of the file's first record.
        size: how many records the stream had up to the last block that was kept as whole; zero where nothing was.
        end: where that block ends: what stands from there on has to be read.
        checkpoint_at: where the last checkpoint's record begins, 0 where there is none.
    """

    def __init__(self, first: int) -> None:
        self.first = first
        self.size = self.end = self.checkpoint_at = self._last = 0
        self._offsets = _Column(_OFFSET.size)
        self._levels: list[_Column] = []

    @classmethod
    def load(cls, log: Path, first: int) -> Contents:
        """Return what stands beside a log's file, all but its last block; nothing where it does not fit."""
        made = cls(first)
        with contextlib.suppress(OSError, InvalidInputError):
            made._take(_Kept(_beside(log)), log)
        return made

    def _take(self, kept: _Kept, log: Path) -> None:
        head = kept.read(0, _HEAD_END)
        first, size, _, checkpoint_at, blocks = _HEAD.unpack_from(head, len(_MAGIC))
        # All but the last block are whole; that one is read again from its beginning.
        whole = first_of(self.first, BLOCK_LEVEL) + blocks - 1
        counts = list(_counts(self.first, whole))
        roots_at = _HEAD_END + _OFFSET.size * blocks
        is_ours = head.startswith(_MAGIC) and first == self.first and blocks > 1 and whole << BLOCK_LEVEL <= size
        if not is_ours or kept.size != roots_at + HASH_SIZE * sum(counts) or LogFile(log).is_compressed:
            return
        (end,) = _OFFSET.unpack(kept.read(roots_at - _OFFSET.size, _OFFSET.size))
        if max(end, checkpoint_at) > log.stat().st_size:
            return
        self.size, self.end, self.checkpoint_at, self._last = whole << BLOCK_LEVEL, end, checkpoint_at, end
        self._offsets = _Column(_OFFSET.size, kept, _HEAD_END, blocks - 1)
        for count in counts:
            self._levels.append(_Column(HASH_SIZE, kept, roots_at, count))
            roots_at += HASH_SIZE * count

    def offset(self, block: int) -> int:
        """Return where a block begins; 0, where the file does, for one that begins in an earlier file.

        Raises:
            InvalidInputError: it cannot be there.
        """
        found = self._offsets.find(block - first_of(self.first, BLOCK_LEVEL))
        offset = 0 if found is None else int(_OFFSET.unpack(found)[0])
        if offset > self._last:
            raise InvalidInputError("the index of a log is of another file")
        return offset

    def node(self, level: int, number: int) -> bytes | None:
        """Return the root of a subtree of whole blocks, None where there is none.

        Raises:
            InvalidInputError: the index is not what it was.
        """
        at = level - BLOCK_LEVEL
        return self._levels[at].find(number - first_of(self.first, level)) if at < len(self._levels) else None

    def add_offset(self, offset: int) -> None:
        """Add where the next block begins."""
        self._offsets.append(_OFFSET.pack(offset))
        self._last = offset

    def add_block(self, root: bytes, number: int) -> None:
        """Add the root of the block that ends before record ``number``, and those of the subtrees that it completes.

        Raises:
            InvalidInputError: the index is not what it was.
        """
        level, at = BLOCK_LEVEL, (number >> BLOCK_LEVEL) - 1
        while True:
            if level - BLOCK_LEVEL == len(self._levels):
                self._levels.append(_Column(HASH_SIZE))
            nodes = self._levels[level - BLOCK_LEVEL]
            nodes.append(root)
            left = nodes.find(nodes.count - 2) if at % 2 else None
            if left is None:
                return
            root = node_hash(left, root)
            level, at = level + 1, at >> 1

    def save(self, log: Path, size: int) -> None:
        """Keep everything beside a log's file, up to which the stream has ``size`` records."""
        blocks = self._offsets.count
        if blocks < 2 or LogFile(log).is_compressed:
            return
        whole = first_of(self.first, BLOCK_LEVEL) + blocks - 1
        # A cache that cannot be written is no error.
        with contextlib.suppress(OSError, InvalidInputError):
            head = _HEAD.pack(self.first, size, self._last, self.checkpoint_at, blocks)
            columns = zip(self._levels, _counts(self.first, whole), strict=False)
            parts = [_MAGIC, head, self._offsets.head(blocks), *(nodes.head(count) for nodes, count in columns)]
            replace_file(_beside(log), b"".join(parts))


class _Kept:
    """A file as it was when it was opened, which stays so when another takes its place."""

    def __init__(self, path: Path) -> None:
        # Without waiting: a pipe may stand in its place.
        self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        weakref.finalize(self, os.close, self._descriptor)
        self.size = os.fstat(self._descriptor).st_size

    def read(self, at: int, size: int) -> bytes:
        """Return so many bytes; ``InvalidInputError`` where they are not there."""
        content = b""
        with contextlib.suppress(OSError):
            content = os.pread(self._descriptor, size, at)
        if len(content) != size:
            raise InvalidInputError("the index of a log is not what it was")
        return content


class _Column:
    """Items of one size: those that were kept, and those that were added to them."""

    __slots__ = ("_added", "_at", "_kept", "_kept_bytes", "_size", "count")

    def __init__(self, size: int, kept: _Kept | None = None, at: int = 0, count: int = 0) -> None:
        self.count = count
        self._size = size
        self._kept, self._at, self._kept_bytes = kept, at, count * size
        self._added = bytearray()

    def find(self, number: int) -> bytes | None:
        """Return an item, None where there is none."""
        if not 0 <= number < self.count:
            return None
        begin = number * self._size
        if self._kept is not None and begin < self._kept_bytes:
            return self._kept.read(self._at + begin, self._size)
        begin -= self._kept_bytes
        return bytes(self._added[begin : begin + self._size])

    def append(self, item: bytes) -> None:
        """Add an item."""
        self._added += item
        self.count += 1

    def head(self, count: int) -> bytes:
        """Return the first ``count`` items."""
        kept = b"" if self._kept is None else self._kept.read(self._at, self._kept_bytes)
        return (kept + self._added)[: count * self._size]


def first_of(first: int, level: int) -> int:
    """Return the number of the first subtree of a level that begins at ``first`` or behind it."""
    return -(-first >> level)


def _counts(first: int, whole: int) -> Iterator[int]:
    """Yield how many complete subtrees there are at each level from 8 on, up to so many blocks of the stream."""
    level = BLOCK_LEVEL
    while (count := (whole >> (level - BLOCK_LEVEL)) - first_of(first, level)) > 0:
        yield count
        level += 1


def _beside(log: Path) -> Path:
    return log.with_name(f"{log.name}.index")
