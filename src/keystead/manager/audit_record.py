"""A record of the audit trail as people read it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from keystead.ledger.audit.entries import Entry, rejection_in, split_payload
from keystead.ledger.format.records import MalformedRecordError, parse_line, parse_payload
from keystead.model import utc_of
from keystead.ports import AuditLogRow


@dataclass(frozen=True, slots=True)
class AuditRecord:
    """A record of the trail, as it says itself; ``verify`` tells whether it is true.

    ``rejected`` is why an entry was not authentic; then there is nothing else but its number. ``key_id`` is a data
    key's id; ``keys`` are those that were changed, each with ``id``, ``keyring``, ``version`` and ``state``.
    """

    seq: int
    action: str
    at: datetime | None = None
    keyring: str | None = None
    key_id: int | None = None
    actor: str | None = None
    node: str | None = None
    details: Mapping[str, Any] = field(default_factory=dict)
    keys: list[Mapping[str, Any]] = field(default_factory=list)
    rejected: str | None = None


@dataclass(frozen=True, slots=True)
class SealedRecord:
    """A record as it stands in the log, nothing of it verified.

    ``kind`` is that of the log's own records, None for an entry; ``text`` is what it says, as JSON with each member on
    a line of its own; ``entry`` is that as people read it, None where it is none.
    """

    seq: int
    sealed_at: datetime
    kind: str | None
    text: str
    entry: AuditRecord | None


def sealed_of(row: AuditLogRow) -> SealedRecord | None:
    """Return a row whole; None for what is no record."""
    try:
        record = parse_line(row.line)
        parts = None if record.kind is not None else split_payload(record.payload)
        said = parse_payload(record.payload) if parts is None else Entry.parse(parts[0]).members
        at = utc_of(record.time_ms)
    except (ValueError, OverflowError):
        return None
    text = json.dumps(said, indent=2, ensure_ascii=False)
    return SealedRecord(row.seq, at, record.kind, text, record_of(row))


def record_of(row: AuditLogRow) -> AuditRecord | None:
    """Return a row as what it says; None for a record of the log's own, or what is no record."""
    try:
        record = parse_line(row.line)
    except MalformedRecordError:
        return None
    if record.kind is not None:
        return None
    if (rejected := rejection_in(record.payload)) is not None:
        return AuditRecord(row.seq, "audit.rejected", rejected=str(rejected.get("reason")), details=rejected)
    parts = split_payload(record.payload)
    try:
        entry = None if parts is None else Entry.parse(parts[0])
        if entry is None:
            return None
        members = entry.members
        return AuditRecord(
            row.seq,
            members["action"],
            datetime.fromisoformat(members["time"]),
            members.get("keyring"),
            entry.key_id,
            members.get("actor"),
            members["node"],
            entry.details,
            list(members.get("keys", ())),
        )
    except ValueError:
        return None
