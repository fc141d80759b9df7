"""What a file says of files that were removed before it: said again before it is removed itself, or they were missing.

Whoever writes has no key of earlier sessions. It believes a file by a checkpoint of its own signer over what it says,
and by nothing else: a word that somebody put there must not be sealed as the log's own.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Final

from keystead.errors import CouldNotVerifyError, InvalidInputError
from keystead.ledger.format.records import Kind, MalformedRecordError, Session, parse_line, parse_payload, retained
from keystead.ledger.reading.checking import StreamChecker
from keystead.ledger.reading.lines import LogFile
from keystead.ledger.tlog.checkpoint import SignedCheckpoint, verify_checkpoint
from keystead.ledger.tlog.note import NoteKey

MOST_FILES: Final = 16_384
"""Files that one record tells of at most."""

Removals = dict[str, list[dict[str, int]]]
"""Files that were removed, by the reason."""


def removals_in(files: Iterable[Path], stream: str, keys: Sequence[NoteKey]) -> Removals:
    """Return what files say of others that were removed.

    Raises:
        InvalidInputError: one says so, and no checkpoint by one of ``keys`` vouches for it.
        StorageOperationError: it cannot be read.
    """
    found: Removals = {}
    for file in files:
        last = -1
        for _, line in LogFile(file).lines_from(0):
            if b',"k":"retention","d":' not in line[:64]:
                continue
            try:
                record = parse_line(line)
                removed, reason = retained(parse_payload(record.payload))
            except MalformedRecordError:
                continue
            if record.kind == Kind.RETENTION:
                found.setdefault(reason, []).extend(removed)
                last = max(last, record.number)
        if last >= 0 and _vouched(file, stream, keys) <= last:
            raise InvalidInputError(
                f"{file.name} says which files were removed before it, and no checkpoint of this log's signer vouches "
                "for that: verify the log, and keep this file"
            )
    return found


def merged(removals: Removals) -> list[dict[str, Any]]:
    """Return the payloads that say it, each file once, and in each as many as fit into a record."""
    told: set[int] = set()
    payloads = []
    for reason, files in removals.items():
        each_once = {file["file"]: file for file in files if file["file"] not in told}
        told |= set(each_once)
        if each_once:
            removed = [each_once[number] for number in sorted(each_once)]
            for begin in range(0, len(removed), MOST_FILES):
                payloads.append({"files": removed[begin : begin + MOST_FILES], "reason": reason})
    return payloads


class _SignedOnly:
    """Trusts checkpoints, and no tags."""

    def __init__(self, stream: str, keys: Sequence[NoteKey]) -> None:
        self.stream = stream
        self._keys = keys

    def session_key(self, session: Session) -> bytes | None:
        return None

    def checkpoint(self, note: bytes, time_ms: int) -> SignedCheckpoint:
        return verify_checkpoint(note, self._keys)


def _vouched(file: Path, stream: str, keys: Sequence[NoteKey]) -> int:
    """Return how many records a checkpoint in a sound file vouches for."""
    try:
        report = StreamChecker(_SignedOnly(stream, keys)).check([LogFile(file)])
    except CouldNotVerifyError:
        return 0
    return report.vouched if report.valid else 0
