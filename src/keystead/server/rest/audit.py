"""``/v1/audit``: the audit trail of the store. The words are those of ``keystead audit``.

Whether the trail is as it was written is found out elsewhere, by a policy and a checkpoint that were kept there: the
service that writes it cannot vouch for it.
"""

from __future__ import annotations

from datetime import datetime
from enum import Enum
from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends, Path, Query
from pydantic import AfterValidator, Field, StringConstraints

from keystead.access.callers import Scope
from keystead.ledger.audit.actor import LONGEST
from keystead.ledger.audit.entries import MAX_KEY_ID
from keystead.ledger.tlog.checkpoint import Checkpoint
from keystead.ledger.tlog.note import Note
from keystead.manager.audit_listing import newest_before, proof_at, sealed_at
from keystead.manager.audit_record import AuditRecord
from keystead.model import utc_text
from keystead.ports import AuditFilter
from keystead.server.admin import Admin
from keystead.server.rest.answers import ABSENT, CONFLICT, answers
from keystead.server.rest.door import Needs
from keystead.server.rest.shapes import (
    LIMIT,
    Cursor,
    KeyId,
    Limit,
    Moment,
    Name,
    Page,
    Told,
    cursor_of,
    place_of,
)

_TAGS: Final[list[str | Enum]] = ["audit"]
Reads = Annotated[Admin, Depends(Needs(Scope.AUDIT_READ, is_of_store=True))]


Actor = Annotated[str, StringConstraints(min_length=1, max_length=LONGEST, pattern=r"^[\p{L}\p{M}\p{N}\p{P}\p{S} ]+$")]
RecordNumber = Annotated[int, Path(ge=0, le=MAX_KEY_ID, description="The record's number.", examples=[0])]


def _require_key_id(text: str | None) -> str | None:
    if text is not None and int(text) > MAX_KEY_ID:
        raise ValueError("a data key's id is a number of up to 63 bits")
    return text


class AuditEntry(Told):
    """An entry of the trail, as it says itself."""

    record: int = Field(ge=0, description="Its number in the trail.")
    action: str = Field(examples=["key.rotate"])
    at: datetime | None = Field(description="Null, as what follows, where the entry is not authentic.")
    keyring: str | None
    key_id: KeyId | None
    actor: str | None = Field(
        description="On whose behalf it was done.", examples=["token 0123456789abcdef, user billing-backend"]
    )
    node: str | None = Field(description="The process that did it.")
    details: dict[str, Any]
    keys: list[dict[str, Any]] = Field(description="The data keys that were changed, as they are since.")
    rejected: str | None = Field(description="Why an entry is not authentic.")

    @classmethod
    def of(cls, found: AuditRecord) -> AuditEntry:
        """Return what is told of an entry."""
        return cls(
            record=found.seq,
            action=found.action,
            at=found.at,
            keyring=found.keyring,
            key_id=None if found.key_id is None else str(found.key_id),
            actor=found.actor,
            node=found.node,
            details=dict(found.details),
            keys=[{**key, "id": str(key.get("id"))} for key in found.keys],
            rejected=found.rejected,
        )


class AuditStatus(Told):
    """How the trail stands; nothing is verified for it."""

    is_on: bool
    is_marked: bool = Field(description="Whether the store itself says that it keeps a trail.")
    stream: str | None = Field(description="The trail's name.")
    records: int
    waiting: int = Field(description="Entries that are not sealed yet.")
    oldest_waiting_s: float | None = Field(alias="oldestWaitingSeconds")
    rejected: int = Field(description="Entries that were not authentic, and that nobody has looked into.")
    sealed_by: str | None
    is_sealing: bool
    checkpoint_records: int
    checkpoint_age_s: float | None = Field(alias="checkpointAgeSeconds")
    exported_records: int
    exported_age_s: float | None = Field(alias="exportedAgeSeconds")
    found: str | None = Field(description="What was found in the trail, and nobody has looked into.")
    found_in: int | None


class AuditCheckpoint(Told):
    """A signed statement about the whole trail. Keep it where nobody can change it."""

    stream: str
    records: int
    root: str = Field(pattern=r"^[0-9a-f]{64}$", description="The root of the tree over these records, hex.")
    checkpoint: str = Field(description="The note, as `keystead audit checkpoint` prints it.")


class AuditSealed(Told):
    """A record of the trail, an entry or one of the log's own, as it stands there. Nothing of it is verified."""

    record: int = Field(ge=0)
    sealed_at: datetime
    kind: str | None = Field(description="Of a record of the log's own; null of an entry.")
    text: str = Field(description="What it says, as JSON.")


class AuditProof(Told):
    """The proof that a record is in the trail."""

    record: int = Field(ge=0)
    proof: str = Field(
        description="As `keystead audit verify-proof` reads it; the record and a checkpoint over it are in it."
    )


def register(router: APIRouter) -> None:
    """Add the routes."""
    more = answers(CONFLICT)
    router.get("/audit/entries", tags=_TAGS, operation_id="listAuditEntries", responses=more)(list_entries)
    one = "/audit/records/{record}"
    absent = answers(ABSENT, CONFLICT)
    router.get(one, tags=_TAGS, operation_id="showAuditRecord", responses=absent)(show)
    router.get(f"{one}/proof", tags=_TAGS, operation_id="proveAuditRecord", responses=more)(prove)
    router.get("/audit/status", tags=_TAGS, operation_id="showAuditStatus")(status)
    router.post("/audit/checkpoint", tags=_TAGS, operation_id="makeAuditCheckpoint", responses=more)(checkpoint)


async def list_entries(
    by: Reads,
    *,
    action: Annotated[
        str | None,
        Query(pattern=r"^[a-z0-9_]{1,64}\.[a-z0-9_]{1,64}$", description="Of this action.", examples=["key.rotate"]),
    ] = None,
    keyring: Annotated[Name | None, Query(description="About this keyring.")] = None,
    actor: Annotated[
        Actor | None, Query(description="By whose name this is a part of, whatever its case.", examples=["billing"])
    ] = None,
    key_id: Annotated[
        KeyId | None, AfterValidator(_require_key_id), Query(alias="keyId", description="About this data key.")
    ] = None,
    since: Annotated[Moment | None, Query(description="From then on.")] = None,
    until: Annotated[Moment | None, Query(description="Before then.")] = None,
    limit: Limit = LIMIT,
    cursor: Cursor = None,
) -> Page[AuditEntry]:
    """List entries that are sealed, the newest first. What is listed is not verified, and looking adds no entry.

    Of long entries there are fewer than `limit` in an answer. No list goes by actor, or by several things at once: an
    answer looks through 2000 entries for them and may then have fewer, or none, while `nextCursor` goes on with those
    before the last it has looked at. By time alone they are in the order of their times.
    """
    (before,) = place_of(cursor, int) or (None,)
    where = AuditFilter(
        keyring,
        action,
        None if key_id is None else int(key_id),
        None if since is None else utc_text(since),
        None if until is None else utc_text(until),
    )
    page = await newest_before(by.manager, where, before=before, limit=limit, actor=actor or "")
    behind = None if page.behind is None else cursor_of(page.behind)
    return Page(items=[AuditEntry.of(each) for each in page.records], next_cursor=behind)


async def show(by: Reads, record: RecordNumber) -> AuditSealed:
    """Tell a record whole, an entry or one of the log's own."""
    found = await sealed_at(by.manager, record)
    return AuditSealed(record=found.seq, sealed_at=found.sealed_at, kind=found.kind, text=found.text)


async def prove(by: Reads, record: RecordNumber) -> AuditProof:
    """Answer the proof that a record is in the trail: no database, service or key is needed to verify it.

    It takes a checkpoint over the record, which `makeAuditCheckpoint` makes.
    """
    return AuditProof(record=record, proof=(await proof_at(by.manager, record)).render().decode())


async def status(by: Reads) -> AuditStatus:
    """Tell how the trail stands. Nothing is verified for it, and no entry added."""
    return AuditStatus.model_validate(await by.manager.audit.status())


async def checkpoint(by: Reads) -> AuditCheckpoint:
    """Have everything sealed and signed, and answer the checkpoint: it is worth what it is kept away from."""
    note = await by.manager.audit.checkpoint()
    made = Checkpoint.parse(Note.parse(note).text)
    return AuditCheckpoint(stream=made.origin, records=made.size, root=made.root.hex(), checkpoint=note.decode())
