"""Proofs from a log's files: that one record is in it, and that a later state continues an earlier one."""

from __future__ import annotations

import os
from bisect import bisect_right
from collections.abc import Sequence
from pathlib import Path

from keystead.crypto.merkle import (
    consistency_proof,
    inclusion_proof,
    leaf_hash,
    node_hash,
    verify_consistency,
    verify_inclusion,
)
from keystead.errors import InvalidInputError, InvalidProofError, InvalidSignatureError
from keystead.ledger.format.records import MalformedRecordError, parse_payload, text
from keystead.ledger.reading.files import LogFiles
from keystead.ledger.reading.index import LogIndex
from keystead.ledger.tlog.checkpoint import Checkpoint
from keystead.ledger.tlog.note import Note
from keystead.ledger.tlog.proof import ProofBundle


class LogTree:
    """The tree over a stream's files, as far as they are there. Nothing of it is believed: see ``prove``."""

    def __init__(self, indexes: Sequence[LogIndex]) -> None:
        self._indexes = sorted(indexes, key=lambda index: index.first)
        self._firsts = [index.first for index in self._indexes]

    @classmethod
    def open(cls, path: str | os.PathLike[str], *, is_cached: bool = True) -> LogTree:
        """Return the tree of the log that is or was written to ``path``, or of one file of it that has ended.

        Raises:
            InvalidInputError: there is no log.
            StorageOperationError: a file cannot be read.
        """
        return cls([LogIndex.open(file, is_cached=is_cached) for file in _files(path)])

    @classmethod
    def open_end(cls, path: str | os.PathLike[str], number: int, *, is_cached: bool = True) -> LogTree:
        """Return the tree as ``open`` does, as far as it is needed for proofs from the first ``number`` records on."""
        indexes = []
        for file in reversed(_files(path)):
            indexes.append(LogIndex.open(file, is_cached=is_cached))
            if indexes[-1].first <= number:
                break
        return cls(indexes)

    @property
    def size(self) -> int:
        """How many records the stream has."""
        return self._indexes[-1].size

    def index_of(self, number: int) -> LogIndex:
        """Return the file that a record is in, or the first one."""
        return self._indexes[max(0, bisect_right(self._firsts, number) - 1)]

    def subtree(self, level: int, number: int) -> bytes:
        """Return the root of a complete subtree; ``InvalidInputError`` where files are missing for it."""
        start, end = number << level, (number + 1) << level
        index = self.index_of(end - 1)
        if start >= index.first or end <= index.first or len(self._indexes) == 1:
            return index.subtree(level, number)
        return node_hash(self.subtree(level - 1, 2 * number), self.subtree(level - 1, 2 * number + 1))

    def checkpoint_over(self, number: int) -> tuple[Checkpoint, bytes]:
        """Return a checkpoint over a record, and its note: the last one of the file that the record is in, or later.

        Raises:
            InvalidInputError: there is none yet.
        """
        at = self._indexes.index(self.index_of(number))
        for index in self._indexes[at:]:
            found = _last_of(index)
            if found is not None and found[0].size > number:
                return found
        raise InvalidInputError(f"no checkpoint is over record {number} yet: make one, and ask again")

    def last_checkpoint(self) -> tuple[Checkpoint, bytes]:
        """Return the last checkpoint, and its note; ``InvalidInputError`` where there is none yet."""
        for index in reversed(self._indexes):
            if (found := _last_of(index)) is not None:
                return found
        raise InvalidInputError("the log has no checkpoint yet; one is made each minute in which there are records")


def _files(path: str | os.PathLike[str]) -> list[Path]:
    """Return the files of a log, in their order."""
    given = Path(path)
    files = [given] if LogFiles.is_ended(given) else [*LogFiles(given).ended().values(), given]
    found = [file for file in files if file.exists()]
    if not found:
        raise InvalidInputError(f"{given} is no log: there is no such file")
    return found


def _last_of(index: LogIndex) -> tuple[Checkpoint, bytes] | None:
    """Return the last checkpoint of a file, and its note."""
    record = index.last_checkpoint()
    if record is None:
        return None
    try:
        note = text(parse_payload(record.payload), "note").encode()
        return Checkpoint.parse(Note.parse(note).text), note
    except (MalformedRecordError, InvalidSignatureError):
        return None


def prove(path: str | os.PathLike[str], number: int, checkpoint: bytes | None = None) -> ProofBundle:
    """Return the proof that a record is in a log: everything it needs, but the record's line and the log's public key.

    Args:
        checkpoint: one of the log that was kept, cosigned for instance; the log's own unless given.

    Raises:
        InvalidInputError: there is no such record, or no checkpoint over it yet.
        InvalidProofError: the file is not what its checkpoint says.
        StorageOperationError: a file cannot be read.
    """
    try:
        return _prove(LogTree.open(path), number, checkpoint)
    except (InvalidProofError, InvalidInputError):
        # The index may be of another file, or was written by somebody else.
        return _prove(LogTree.open(path, is_cached=False), number, checkpoint)


def prove_consistency(path: str | os.PathLike[str], old: Checkpoint, new: Checkpoint) -> list[bytes]:
    """Return the proof that the log, which now has ``new``'s records, continues ``old``; empty from nothing.

    Raises:
        InvalidInputError: files are missing for it.
        InvalidProofError: it does not.
        StorageOperationError: a file cannot be read.
    """
    if old.size == 0:
        return []
    for is_cached in (True, False):
        proof = consistency_proof(old.size, new.size, LogTree.open(path, is_cached=is_cached).subtree)
        try:
            verify_consistency(old.size, new.size, old.root, new.root, proof)
        except InvalidProofError:
            if not is_cached:
                raise
            continue
        break
    return proof


def record_line(path: str | os.PathLike[str], number: int) -> bytes:
    """Return a record's line, without its end: what a proof is checked with.

    Raises:
        InvalidInputError: there is no such record.
    """
    try:
        return LogTree.open(path).index_of(number).line(number)
    except InvalidInputError:
        return LogTree.open(path, is_cached=False).index_of(number).line(number)


def _prove(tree: LogTree, number: int, given: bytes | None) -> ProofBundle:
    line = tree.index_of(number).line(number)
    checkpoint, note = tree.checkpoint_over(number) if given is None else _kept(given, number, tree.size)
    proof = inclusion_proof(number, checkpoint.size, tree.subtree)
    verify_inclusion(leaf_hash(line), number, checkpoint.size, proof, checkpoint.root)
    return ProofBundle(number, tuple(proof), note)


def _kept(note: bytes, number: int, size: int) -> tuple[Checkpoint, bytes]:
    try:
        checkpoint = Checkpoint.parse(Note.parse(note).text)
    except InvalidSignatureError as exc:
        raise InvalidInputError(f"the checkpoint that was kept cannot be used: {exc}") from None
    if not number < checkpoint.size <= size:
        raise InvalidInputError(
            f"the checkpoint that was kept is over {checkpoint.size} records: record {number} is none of them, or "
            f"the log has only {size}"
        )
    return checkpoint, note
