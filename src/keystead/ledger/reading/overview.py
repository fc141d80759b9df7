"""What a log says of itself, without a key: files, sessions, checkpoints. Nothing of it is checked."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from keystead.errors import InvalidCiphertextError, InvalidInputError, InvalidSignatureError
from keystead.ledger.format.records import (
    FileHeader,
    Kind,
    MalformedRecordError,
    Record,
    Session,
    closing,
    parse_line,
    parse_payload,
    text,
)
from keystead.ledger.reading.lines import LogFile
from keystead.ledger.tlog.checkpoint import Checkpoint
from keystead.ledger.tlog.note import Note
from keystead.model import EncryptedData


@dataclass(slots=True)
class FileOverview:
    """One file of a log.

    Attributes:
        first, records: the number of its first record, and how many it has; ``kinds`` counts the log's own.
        sessions: as the log has them, the wrapped key replaced by the key that wrapped it.
        checkpoints: size, root and the names and ids of the keys that say they have signed.
        ends: ``closed``, the number of the file that follows, or None where it goes on.
        junk_bytes: what is no record.
    """

    path: str
    size_bytes: int
    is_compressed: bool
    stream: str = ""
    file: int = 0
    first: int = 0
    records: int = 0
    payload_bytes: int = 0
    first_ms: int = 0
    last_ms: int = 0
    junk_bytes: int = 0
    ends: str | int | None = None
    kinds: dict[str, int] = field(default_factory=dict)
    sessions: list[dict[str, Any]] = field(default_factory=list)
    checkpoints: list[dict[str, Any]] = field(default_factory=list)


class LogReader:
    """Reads one file of a log, record by record; each comes with the session that it says it is in.

    Raises:
        InvalidInputError: it is no file of a log.
        StorageOperationError: it cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self._source = LogFile(path)
        self._session: Session | None = None
        self.overview = FileOverview(str(path), path.stat().st_size, self._source.is_compressed)

    def read(self) -> FileOverview:
        """Read all of it."""
        for _ in self.records():
            pass
        return self.overview

    def records(self) -> Iterator[tuple[Record, dict[str, Any]]]:
        """Yield each record, as the names that ``described`` gives it."""
        seen = self.overview
        for batch in self._source.batches():
            for index, line in enumerate(batch.lines):
                try:
                    if index >= batch.whole:
                        raise MalformedRecordError("half a line")
                    record = parse_line(line)
                    self._take(record)
                except MalformedRecordError:
                    if not seen.stream:
                        raise InvalidInputError(f"{seen.path} is no file of a log") from None
                    seen.junk_bytes += len(line)
                    continue
                yield record, described(record, self._session)

    def _take(self, record: Record) -> None:
        seen, payload = self.overview, None if record.kind is None else parse_payload(record.payload)
        if not seen.stream:
            header = FileHeader.of(payload) if record.kind == Kind.FILE else None
            if header is None:
                raise MalformedRecordError("another first record")
            seen.stream, seen.file = header.stream, header.file
            seen.first, seen.first_ms = record.number, record.time_ms
            self._begin(header.session)
        elif record.kind == Kind.SESSION:
            self._begin(Session.of(payload))
        elif record.kind == Kind.EPOCH:
            seen.sessions[-1]["epochs"] += 1
        elif record.kind == Kind.CHECKPOINT:
            seen.checkpoints.append(_checkpoint(text(payload, "note")))
        if record.kind == Kind.CLOSE:
            following = closing(payload)
            seen.ends = "closed" if following is None else following
        elif record.kind != Kind.CHECKPOINT:
            seen.ends = None
        seen.kinds[record.kind or "application"] = seen.kinds.get(record.kind or "application", 0) + 1
        seen.records += 1
        seen.last_ms = record.time_ms
        seen.payload_bytes += len(record.payload) if record.kind is None else 0

    def _begin(self, session: Session) -> None:
        self._session = session
        self.overview.sessions.append(
            {
                "id": session.id,
                "algorithm": session.algorithm,
                "key_id": key_id_of(session),
                "epoch_s": session.epoch_s,
                "epoch": session.epoch,
                "epochs": 1,
                "start_ms": session.start,
            }
        )


def described(record: Record, session: Session | None) -> dict[str, Any]:
    """Return a record under the names that its fields have elsewhere: ``seq``, ``mac``, ``algo``, ``key_id``."""
    return {
        "seq": record.number,
        "time_ms": record.time_ms,
        "kind": record.kind,
        "payload": record.payload.decode("utf-8", "backslashreplace"),
        "mac": record.tag.decode("ascii", "replace"),
        "algo": None if session is None else session.algorithm,
        "key_id": None if session is None else key_id_of(session),
        "session": None if session is None else session.id,
    }


def key_id_of(session: Session) -> str | None:
    """Return the KMS key, with its version, that a session's key is wrapped by; None where it says none."""
    try:
        reference = EncryptedData.parse(session.key or "").key_reference
    except (InvalidInputError, InvalidCiphertextError):
        return None
    version = "" if reference.key_version is None else f":{reference.key_version}"
    return f"{reference.qualified_id}{version}"


def _checkpoint(given: str) -> dict[str, Any]:
    try:
        note = Note.parse(given.encode())
        found = Checkpoint.parse(note.text)
    except InvalidSignatureError:
        raise MalformedRecordError("no checkpoint") from None
    signed = [f"{each.name}+{each.key_id.hex()}" for each in note.signatures]
    return {"size": found.size, "root": found.root.hex(), "origin": found.origin, "signatures": signed}
