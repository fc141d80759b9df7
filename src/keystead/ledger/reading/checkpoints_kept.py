"""The last checkpoint of a log, read from its files beside whoever writes them, checked, and cosigned by witnesses."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from keystead.crypto.merkle import consistency_proof, node_hash
from keystead.errors import InvalidInputError, InvalidProofError, KMSError
from keystead.ledger.reading.proving import LogTree
from keystead.ledger.tlog.checkpoint import Checkpoint
from keystead.ledger.tlog.cosignature import WitnessKey
from keystead.ledger.tlog.note import NoteSignature
from keystead.ledger.witness.client import TIMEOUT_S, cosigned, with_cosignatures


@dataclass(slots=True)
class Witnessed:
    """A checkpoint with cosignatures, and what became of each witness that was asked.

    Attributes:
        witnesses: names of those that have cosigned.
        failures: by URL.
    """

    note: bytes
    checkpoint: Checkpoint
    witnesses: set[str] = field(default_factory=set)
    failures: dict[str, KMSError] = field(default_factory=dict)


def last_checkpoint(path: str | os.PathLike[str], *, is_cached: bool = False) -> tuple[Checkpoint, bytes]:
    """Return the last checkpoint of a log, and its note, if the files are what it says. Whose it is, is not looked at.

    Raises:
        InvalidInputError: there is no log, or no checkpoint in it yet.
        InvalidProofError: the files are not what the checkpoint says.
        StorageOperationError: a file cannot be read.
    """
    tree = LogTree.open(path, is_cached=is_cached)
    checkpoint, note = tree.last_checkpoint()
    if checkpoint.size > tree.size or root_at(tree, checkpoint.size) != checkpoint.root:
        raise InvalidProofError(f"{Path(path).name} is not what its last checkpoint says; verify it")
    return checkpoint, note


def witnessed(
    path: str | os.PathLike[str], urls: Sequence[str], keys: Sequence[WitnessKey], *, timeout_s: float = TIMEOUT_S
) -> Witnessed:
    """Return the last checkpoint of a log with the cosignatures of witnesses; errors as ``last_checkpoint``."""
    checkpoint, note = last_checkpoint(path)
    found = Witnessed(note, checkpoint)
    for url in urls:
        try:
            signatures = _asked(path, found, url, keys, timeout_s)
        except KMSError as exc:
            found.failures[url] = exc
            continue
        found.note = with_cosignatures(found.note, signatures)
        found.witnesses |= {each.name for each in signatures}
    return found


def root_at(tree: LogTree, size: int) -> bytes:
    """Return the root over the first ``size`` records.

    Raises:
        InvalidInputError: files are missing for it.
    """
    if not size:
        raise InvalidInputError("nothing is signed over no records")
    at, root = size, b""
    for level in range(size.bit_length()):
        if size >> level & 1:
            at -= 1 << level
            left = tree.subtree(level, at >> level)
            root = node_hash(left, root) if root else left
    return root


def _asked(
    path: str | os.PathLike[str], found: Witnessed, url: str, keys: Sequence[WitnessKey], timeout_s: float
) -> Sequence[NoteSignature]:
    size = found.checkpoint.size
    tree = LogTree.open(path, is_cached=False)
    return cosigned(found.note, url, keys, lambda old: consistency_proof(old, size, tree.subtree), timeout_s=timeout_s)
