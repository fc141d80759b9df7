"""Whether the KEK that is to seal a log is the one that the log was sealed under, as far as a writer can tell."""

from __future__ import annotations

from typing import Final

from keystead.errors import ConfigurationError, CouldNotVerifyError, KMSError, StorageOperationError
from keystead.ledger.format.records import Kind, MalformedRecordError, Session, parse_line, parse_payload
from keystead.ledger.format.session_source import KmsSessions
from keystead.ledger.reading.files import LogFiles
from keystead.ledger.reading.lines import LogFile
from keystead.ledger.reading.verifier import header_in

_SESSION: Final = b'"k":"session"'


def require_kek(source: KmsSessions, file: str, stream: str) -> bool:
    """Return whether the KEK opened the key of the log's last session.

    False where there is nothing to open, or the writer may only wrap. KEKs of this machine all have one name, so that
    no comparison of names tells them apart.

    Raises:
        ConfigurationError: it is another KEK.
    """
    session = _last_session(LogFiles(file), stream)
    if session is None:
        return False
    try:
        if source.opens(session, stream):
            return True
    except KMSError:
        return False
    raise ConfigurationError(
        f"{file} was sealed under another KEK than {source.uri or 'the one at hand'} (same name, other key): give the "
        "one it was sealed with, or another file"
    )


def _last_session(files: LogFiles, stream: str) -> Session | None:
    """Return the last session of a log that has a key; None where there is none, or the log cannot be read."""
    last = LogFile(files.path if files.path.exists() else next(reversed(files.ended().values()), files.path))
    try:
        header = header_in(last)
        if header is None or header.stream != stream:
            return None
        session = header.session if header.session.key is not None else None
        for batch in last.batches():
            for line in batch.lines:
                # The words may stand in what the application logged, too: the line is parsed before it counts.
                if _SESSION in line:
                    session = _session_in(line) or session
    except (CouldNotVerifyError, StorageOperationError):
        return None  # opening the log tells better what is wrong with it
    return session


def _session_in(line: bytes) -> Session | None:
    try:
        record = parse_line(line)
        session = Session.of(parse_payload(record.payload)) if record.kind == Kind.SESSION else None
    except MalformedRecordError:
        return None
    return session if session is not None and session.key is not None else None
