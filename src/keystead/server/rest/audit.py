"""``/v1/audit``: the audit trail of the store. The words are those of ``keystead audit``.

Whether the trail is as it was written is found out elsewhere, by a policy and a checkpoint that were kept there: the
service that writes it cannot vouch for it.
"""

from __future__ import annotations

from datetime import datetime
from enum import Enum
from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends, Query
from pydantic import AfterValidator, Field

from keystead.access.callers import Scope
from keystead.ledger.audit.entries import MAX_KEY_ID
from keystead.ledger.tlog.checkpoint import Checkpoint
from keystead.ledger.tlog.note import Note
from keystead.manager.audit_listing import newest_before
from keystead.manager.audit_record import AuditRecord
from keystead.model import utc_text
from keystead.ports import AuditFilter
from keystead.server.admin import Admin
from keystead.server.rest.answers import CONFLICT, answers
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


def register(router: APIRouter) -> None:
    """Add the routes."""
    more = answers(CONFLICT)
    router.get("/audit/entries", tags=_TAGS, operation_id="listAuditEntries", responses=more)(list_entries)
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
    key_id: Annotated[
        KeyId | None, AfterValidator(_require_key_id), Query(alias="keyId", description="About this data key.")
    ] = None,
    since: Annotated[Moment | None, Query(description="From then on.")] = None,
    until: Annotated[Moment | None, Query(description="Before then.")] = None,
    limit: Limit = LIMIT,
    cursor: Cursor = None,
) -> Page[AuditEntry]:
    """List entries that are sealed, the newest first. What is listed is not verified, and looking adds no entry.

    Of long entries there are fewer than `limit` in an answer. Where several things are asked for there may be fewer as
    well, or none, although there are others behind `nextCursor`. By time alone they are in the order of their times.
    """
    (before,) = place_of(cursor, int) or (None,)
    where = AuditFilter(
        keyring,
        action,
        None if key_id is None else int(key_id),
        None if since is None else utc_text(since),
        None if until is None else utc_text(until),
    )
    page = await newest_before(by.manager, where, before=before, limit=limit)
    behind = None if page.behind is None else cursor_of(page.behind)
    return Page(items=[AuditEntry.of(each) for each in page.records], next_cursor=behind)


async def status(by: Reads) -> AuditStatus:
    """Tell how the trail stands. Nothing is verified for it, and no entry added."""
    return AuditStatus.model_validate(await by.manager.audit.status())


async def checkpoint(by: Reads) -> AuditCheckpoint:
    """Have everything sealed and signed, and answer the checkpoint: it is worth what it is kept away from."""
    note = await by.manager.audit.checkpoint()
    made = Checkpoint.parse(Note.parse(note).text)
    return AuditCheckpoint(stream=made.origin, records=made.size, root=made.root.hex(), checkpoint=note.decode())
