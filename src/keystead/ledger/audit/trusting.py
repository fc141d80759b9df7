"""What a trail's reader trusts: the keys that nodes have said they use, in entries that only a node can have written.

Spec: docs/spec/audit-v1.md, 3.7 and 6.5.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from keystead.errors import CouldNotVerifyError, InvalidInputError, InvalidSignatureError
from keystead.ledger.audit.entries import Entry, has_code, split_payload
from keystead.ledger.audit.sessions import SESSION, Opens, first_opened, told_session
from keystead.ledger.format.records import MalformedRecordError, parse_line
from keystead.ledger.format.tags import Tagger
from keystead.ledger.reading.lines import LogFile
from keystead.ledger.reading.policy import TrustedKey, TrustedSigner, TrustPolicy
from keystead.ledger.tlog.note import NoteKey
from keystead.ports import AuditFilter, AuditLogRow, AuditSessionRow

SEQUENCER = "audit.sequencer"
WANTED = (SESSION, SEQUENCER)

Searches = Callable[[AuditFilter], Iterable[AuditLogRow]]


def lines_in_files(files: Sequence[Path]) -> Iterator[bytes]:
    """Yield the lines of files that may tell of sessions, or of who sealed.

    Raises:
        StorageOperationError: one cannot be read.
    """
    marks = tuple(b'"action":"%b"' % action.encode() for action in WANTED)
    for file in files:
        for _, line in LogFile(file).lines_from(0):
            if any(mark in line for mark in marks):
                yield line


def lines_in_table(search: Searches) -> Iterator[bytes]:
    """Yield the lines of records that are listed as telling of sessions, or of who sealed."""
    for action in WANTED:
        for row in search(AuditFilter(action=action)):
            yield row.line


def policy_from(
    lines: Iterable[bytes],
    opens: Opens,
    stream: str,
    *,
    own: TrustPolicy | None = None,
    sessions: Iterable[AuditSessionRow] = (),
    waiting: Iterable[tuple[bytes, bytes]] = (),
    uris: Mapping[str, str] | None = None,
) -> TrustPolicy:
    """Return the policy that authentic entries lead to.

    Args:
        lines: records of the log.
        own: what the reader trusts besides.
        sessions: sessions that are known otherwise.
        waiting: entries that are not in the log yet, and their codes.
        uris: what opens a KMS, by its provider's name.

    Raises:
        CouldNotVerifyError: nobody has said what seals this stream.
    """
    rows: dict[str, list[AuditSessionRow]] = {}
    for row in sessions:
        rows.setdefault(row.id, []).append(row)
    told: list[tuple[Entry, bytes]] = []
    for parts in chain(map(_parts, lines), waiting):
        entry = None if parts is None else _entry(parts[0])
        if parts is None or entry is None:
            continue
        if (begun := told_session(entry.members)) is not None:
            rows.setdefault(begun.id, []).append(begun)
        elif entry.members["action"] == SEQUENCER:
            told.append((entry, parts[1]))
    codes: dict[str, Tagger | None] = {}
    keys: dict[TrustedKey, None] = {} if own is None else dict.fromkeys(own.keys)
    signers: dict[TrustedSigner, None] = {} if own is None else dict.fromkeys(own.signers)
    for entry, code in told:
        session = entry.members["session"]
        if session not in codes:
            codes[session] = _opened(opens, rows.get(session, ()))
        make, details = codes[session], entry.details
        if make is None or not has_code(make, entry.content, code) or details.get("stream") != stream:
            continue
        key, of_signers = _told(details, uris or {})
        keys[key] = None
        signers |= dict.fromkeys(of_signers)
    if not keys:
        raise CouldNotVerifyError(
            "no entry of this trail says which keys seal it, or none of them can be read here; name a trust policy "
            "that was saved (--policy)"
        )
    return TrustPolicy(stream, tuple(keys), tuple(signers))


def _opened(opens: Opens, told: Iterable[AuditSessionRow]) -> Tagger | None:
    try:
        found = first_opened(opens, told)
    except InvalidSignatureError:
        return None
    return None if found is None else found[1]


def _told(details: Mapping[str, Any], uris: Mapping[str, str]) -> tuple[TrustedKey, list[TrustedSigner]]:
    provider = str(details.get("provider"))
    signers: list[TrustedSigner] = []
    for vkey in details.get("vkeys", ()):
        try:
            key = NoteKey.parse(str(vkey))
        except InvalidInputError:
            continue
        mac = None if key.kms_key is None or key.kms_key.reference is None else key.kms_key.reference.provider
        signers.append(TrustedSigner(key, kms=None if mac is None else uris.get(mac)))
    return TrustedKey(provider, str(details.get("key")), uris.get(provider)), signers


def _parts(line: bytes) -> tuple[bytes, bytes] | None:
    try:
        record = parse_line(line)
    except MalformedRecordError:
        return None
    return None if record.kind is not None else split_payload(record.payload)


def _entry(content: bytes) -> Entry | None:
    try:
        return Entry.parse(content)
    except ValueError:
        return None
