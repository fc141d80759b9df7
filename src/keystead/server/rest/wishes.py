"""``/v1/fields`` and ``/v1/reencryption-wishes``: re-encryptions are asked for of workers that wait at their tables."""

from __future__ import annotations

from datetime import datetime
from enum import Enum
from typing import Annotated, Final

from fastapi import APIRouter, Path, Query
from pydantic import Field

from keystead import fields
from keystead.access.approvals import person_of
from keystead.fields.plan_text import MOST_VERSIONS, parse_plan
from keystead.fields.wishes import KEPT, FieldStanding, fields_after
from keystead.model import utc_of
from keystead.ports import WishKind, WishRecord, WishState
from keystead.server.rest.answers import ABSENT, CONFLICT, answers
from keystead.server.rest.jobs import Reads, Writes
from keystead.server.rest.shapes import LIMIT, SHORT_ID, Cursor, Given, Limit, Page, Told, page_of, place_of

_TAGS: Final[list[str | Enum]] = ["jobs"]
_FIELD: Final = r"^[^\x00]{1,400}$"
WishId = Annotated[
    str, Path(alias="wishId", pattern=SHORT_ID, description="The wish's id.", examples=["0123456789abcdef"])
]


class NewWish(Given):
    """What to ask for."""

    field: str = Field(pattern=_FIELD, description="The registered field.", examples=["people.email"])
    kind: WishKind = Field(description="`plan` counts and estimates, `run` re-encrypts.")


class RowsOfVersion(Told):
    """How many rows are under one version of a keyring."""

    keyring: str | None = Field(description="Null of rows whose data key the store does not know.")
    version: int | None
    rows: int


class Plan(Told):
    """What a re-encryption has before it, as a worker has counted it."""

    rows: int
    versions: list[RowsOfVersion] = Field(max_length=MOST_VERSIONS, description="Those with the most rows.")
    other_versions: int = Field(description="How many versions more there are.")
    other_rows: int = Field(description="How many rows are under these.")
    empty: int = Field(description="Rows without a ciphertext.")
    erased: int = Field(description="Rows of forgotten subjects.")
    plaintext: int = Field(description="Rows in clear.")
    sample_rows: int = Field(description="The first rows, which were decrypted.")
    sample_changes: int = Field(description="How many of these are to be written.")
    seconds: float = Field(description="An estimate for one worker.")
    unfinished: str | None = Field(description="The re-encryption that would be gone on with.")


class Wish(Told):
    """A plan or a re-encryption that somebody asked for, and what became of it."""

    id: str = Field(pattern=SHORT_ID, examples=["0123456789abcdef"])
    field_id: str = Field(examples=["people.email"])
    kind: WishKind
    state: WishState
    asked_by: str = Field(description="Empty where nobody has said.")
    asked_at: datetime
    taken_at: datetime | None
    ended_at: datetime | None
    worker: str | None
    reencryption_id: str | None = Field(description="The re-encryption that its worker has begun or goes on with.")
    plan: Plan | None
    error_code: str | None = Field(description="Why it failed, as the page of errors has it.")

    @classmethod
    def of(cls, record: WishRecord) -> Wish:
        """Return what is told of a wish."""
        kept = parse_plan(record.plan)
        plan = None
        if kept is not None:
            told = {name: getattr(kept.plan, name) for name in Plan.model_fields if hasattr(kept.plan, name)}
            told["versions"] = [RowsOfVersion.model_validate(each) for each in kept.plan.versions]
            plan = Plan(**told, other_versions=kept.other_versions, other_rows=kept.other_rows)
        return cls(
            id=record.id,
            field_id=record.field_id,
            kind=record.kind,
            state=record.state,
            asked_by=record.asked_by,
            asked_at=utc_of(record.asked_ms),
            taken_at=None if record.taken_ms is None else utc_of(record.taken_ms),
            ended_at=None if record.ended_ms is None else utc_of(record.ended_ms),
            worker=record.worker,
            reencryption_id=record.job_id,
            plan=plan,
            error_code=record.error_code,
        )


class RegisteredField(Told):
    """A registered field, who waits for wishes of it, and what was asked for lately."""

    id: str = Field(examples=["people.email"])
    keyring: str
    locator: str = Field(description="Where the rows are.")
    waiting_workers: int = Field(description="How many workers wait for wishes now.")
    waiting_since: datetime | None
    seen_at: datetime | None = Field(description="When a worker was seen last.")
    command: str | None = Field(description="What begins a re-encryption; with `--wait` it waits for wishes.")
    is_command_whole: bool = Field(description="False where the application's declaration has to be added.")
    wishes: list[Wish] = Field(max_length=KEPT, description="The newest first.")

    @classmethod
    def of(cls, found: FieldStanding) -> RegisteredField:
        """Return what is told of a field."""
        listeners = found.listeners
        since = None if listeners is None or listeners.since_ms is None else utc_of(listeners.since_ms)
        return cls(
            id=found.field.id,
            keyring=found.field.keyring,
            locator=found.field.locator,
            waiting_workers=0 if listeners is None else listeners.waiting,
            waiting_since=since,
            seen_at=None if listeners is None else utc_of(listeners.seen_ms),
            command=found.command,
            is_command_whole=found.is_whole,
            wishes=[Wish.of(each) for each in found.wishes[:KEPT]],
        )


def register(router: APIRouter) -> None:
    """Add the routes."""
    router.get("/fields", tags=_TAGS, operation_id="listFields")(list_fields)
    changing = answers(ABSENT, CONFLICT)
    wishes = "/reencryption-wishes"
    router.post(wishes, tags=_TAGS, operation_id="askReencryption", status_code=201, responses=changing)(ask)
    cancelling = f"{wishes}/{{wishId}}/cancel"
    router.post(cancelling, tags=_TAGS, operation_id="cancelReencryptionWish", responses=changing)(cancel)


async def list_fields(
    by: Reads,
    field: Annotated[str | None, Query(pattern=_FIELD, description="Only this one.")] = None,
    limit: Limit = LIMIT,
    cursor: Cursor = None,
) -> Page[RegisteredField]:
    """List registered fields by id: whether workers wait for wishes, what was asked for lately, and the last plans."""
    (after,) = place_of(cursor, str) or ("",)
    found = await fields_after(by.manager, after, limit=limit + 1, only=field)
    shown, behind = page_of(found, limit, lambda each: (each.field.id,))
    return Page(items=[RegisteredField.of(each) for each in shown], next_cursor=behind)


async def ask(by: Writes, given: NewWish) -> Wish:
    """Ask for a plan or a re-encryption. It waits for a worker, `keystead reencrypt --wait`, where the table is."""
    return Wish.of(await fields.wish(by.manager, given.field, given.kind, asked_by=person_of(by.by)))


async def cancel(by: Writes, wish_id: WishId) -> Wish:
    """Take it back while no worker is at it; of a re-encryption that was begun, pause or cancel that one."""
    return Wish.of(await fields.cancel_wish(by.manager, wish_id))
