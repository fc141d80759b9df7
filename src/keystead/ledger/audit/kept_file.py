"""The file that a trail's last checkpoint is kept in. It is replaced only by one of a log that continues it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from keystead.crypto.merkle import verify_consistency
from keystead.errors import (
    ConfigurationError,
    InvalidInputError,
    InvalidProofError,
    InvalidSignatureError,
    StorageOperationError,
)
from keystead.ledger.tlog.checkpoint import Checkpoint
from keystead.ledger.tlog.note import MAX_NOTE_BYTES, Note
from keystead.runtime.files import replace_file

Proof = Callable[[int, int], Sequence[bytes]]
"""Returns the proof that the log of so many records (the second number) begins with its first ones (the first).

Raises ``InvalidInputError`` where records are missing for it.
"""

_ADVICE: Final = (
    "Keep that file, and verify the trail with it (--since-checkpoint); name another file for a trail that is to go on"
)


class LogChangedError(StorageOperationError):
    """The log is not, or cannot be shown to be, a continuation of what a kept checkpoint says.

    ``found``: ``replaced`` (it is another log), ``rolled_back`` (it has fewer records), ``forked`` (it has others), or
    ``unproven`` (records that were moved away are needed).
    """

    def __init__(self, message: str, found: str, size: int) -> None:
        super().__init__(message)
        self.found = found
        self.size = size


def keep_checkpoint(path: Path, note: bytes, proof: Proof) -> None:
    """Write a checkpoint to a file; on disk when this returns. A later one of the same log is left as it is.

    Raises:
        ConfigurationError: the file cannot be written, or is no checkpoint.
        LogChangedError: the log does not continue what the file says, which stays as it is.
    """
    new = Checkpoint.parse(Note.parse(note).text)
    old = require_continued(path, new, proof)
    if old is not None and old.size > new.size:
        return
    try:
        replace_file(path, note)
    except OSError as exc:
        raise ConfigurationError(f"the checkpoint file {path} cannot be written: {exc.strerror}") from None


def require_continued(path: Path, log: Checkpoint, proof: Proof) -> Checkpoint | None:
    """Return the checkpoint in a file, None where there is no file, if it is of the same log as ``log``.

    Whichever is over fewer records has to be a beginning of the other.

    Raises:
        ConfigurationError: the file is no checkpoint.
        LogChangedError: it is not, or that cannot be shown.
    """
    kept = read_checkpoint(path)
    if kept is None:
        return None
    told = f"{path} has a checkpoint over {kept.size} records"
    if kept.origin != log.origin:
        told = f"{told} of {kept.origin}, and the trail is {log.origin}: another one stands in its place. {_ADVICE}"
        raise LogChangedError(told, "replaced", kept.size)
    first, second = sorted((kept, log), key=lambda each: each.size)
    if first.size == 0:
        return kept
    try:
        path_between = proof(first.size, second.size)
        verify_consistency(first.size, second.size, first.root, second.root, path_between)
    except InvalidInputError as exc:
        if kept.size > log.size:
            told = f"{told}, and the log has {log.size}: it was put back to an earlier state. {_ADVICE}"
            raise LogChangedError(told, "rolled_back", kept.size) from None
        told = f"{told}, and that the log of {log.size} continues it cannot be shown: {exc}. {_ADVICE}"
        raise LogChangedError(told, "unproven", kept.size) from None
    except InvalidProofError:
        told = f"{told}, and the log of {log.size} does not continue it: its records were replaced. {_ADVICE}"
        raise LogChangedError(told, "forked", kept.size) from None
    return kept


def read_checkpoint(path: Path) -> Checkpoint | None:
    """Return the checkpoint in a file, None where there is no file. Whose it is, is not looked at.

    Raises:
        ConfigurationError: it cannot be read, or is no checkpoint.
    """
    try:
        content = path.read_bytes()[: MAX_NOTE_BYTES + 1]
        return Checkpoint.parse(Note.parse(content).text)
    except FileNotFoundError:
        return None
    except (OSError, InvalidSignatureError):
        raise ConfigurationError(f"{path} is no checkpoint of a log: name another file for them") from None
