"""``/v1/jobs``, ``/v1/maintain`` and ``/v1/reencryptions``: what is done from time to time, and to live tables."""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime
from enum import Enum
from typing import Annotated, Final, Literal

from fastapi import APIRouter, Depends, Path, Query
from pydantic import Field

from keystead import fields
from keystead.access.callers import Scope
from keystead.manager.devices import maintain_everything
from keystead.ports import ReencryptionRecord, ReencryptionState
from keystead.server.admin import Admin
from keystead.server.rest.answers import ABSENT, CONFLICT, answers
from keystead.server.rest.door import Needs
from keystead.server.rest.shapes import LIMIT, Cursor, Limit, Page, Told, part_of, place_of

_TAGS: Final[list[str | Enum]] = ["jobs"]
Reads = Annotated[Admin, Depends(Needs(Scope.JOBS_READ, is_of_store=True))]
Writes = Annotated[Admin, Depends(Needs(Scope.JOBS_WRITE, is_of_store=True))]
JobName = Annotated[
    str,
    Path(alias="name", pattern=r"^[a-z0-9_.]{1,100}$", description="The job's name.", examples=["keystead.maintain"]),
]
ReencryptionId = Annotated[
    str,
    Path(
        alias="reencryptionId",
        pattern=r"^[0-9A-Za-z_-]{1,64}$",
        description="The re-encryption's id.",
        examples=["0123456789abcdef0123456789abcdef"],
    ),
]


class Job(Told):
    """A job of the process that answers; each runs in one process at a time."""

    name: str = Field(examples=["keystead.maintain"])
    every_seconds: float = Field(description="How often a process begins it.")
    due_in_seconds: float = Field(description="When the process that answers begins it again.")
    held_by: str | None = Field(description="The process that runs it now.")


class JobRun(Told):
    """How a job ended."""

    name: str = Field(examples=["keystead.maintain"])
    outcome: Literal["done", "held", "failed"] = Field(
        description="`held`: it runs already, here or in another process."
    )
    error_code: str | None = Field(description="Why it failed, as the page of errors has it.")


class ClientKeyUpkeep(Told):
    """What was done to client keys."""

    deprecated: int = Field(description="Pairs that are handed out no more.")
    erased: int = Field(description="Private halves that are gone.")
    dropped: int = Field(description="Ids that are forgotten.")
    unspent: int = Field(description="Ciphertexts that need not be remembered any more.")
    moved: int = Field(description="Private halves that are under the active WRAP key now.")


class Maintained(Told):
    """What was done of what was due."""

    rotated: int
    promoted: int
    destroyed: int
    rewrapped: int
    expired_leases: int
    client_keys: ClientKeyUpkeep
    failures: dict[str, str] = Field(description="The code of the error of each step that failed.", examples=[{}])


class Reencryption(Told):
    """A re-encryption of a column of a live table."""

    id: str
    field_id: str = Field(examples=["people.email"])
    locator: str = Field(description="Where the rows are.")
    state: ReencryptionState
    dry_run: bool
    batch_rows: int
    rows_total: int | None
    created_at: datetime
    updated_at: datetime

    @classmethod
    def of(cls, record: ReencryptionRecord) -> Reencryption:
        """Return what is told of a re-encryption."""
        return cls(
            id=record.id,
            field_id=record.field_id,
            locator=record.locator,
            state=record.state,
            dry_run=record.dry_run,
            batch_rows=record.batch_rows,
            rows_total=record.rows_total,
            created_at=_moment(record.created_ms),
            updated_at=_moment(record.updated_ms),
        )


def register(router: APIRouter) -> None:
    """Add the routes."""
    router.get("/jobs", tags=_TAGS, operation_id="listJobs")(list_jobs)
    router.post("/jobs/{name}/run", tags=_TAGS, operation_id="runJob", responses=answers(ABSENT))(run)
    router.post("/maintain", tags=_TAGS, operation_id="maintain")(maintain)
    router.get("/reencryptions", tags=_TAGS, operation_id="listReencryptions")(list_reencryptions)
    changing = answers(ABSENT, CONFLICT)
    for word, function in (("pause", pause), ("resume", resume), ("cancel", cancel)):
        path = f"/reencryptions/{{reencryptionId}}/{word}"
        router.post(path, tags=_TAGS, operation_id=f"{word}Reencryption", responses=changing)(function)


async def list_jobs(by: Reads, limit: Limit = LIMIT, cursor: Cursor = None) -> Page[Job]:
    """List the jobs that run from time to time, by name."""
    (after,) = place_of(cursor, int) or (0,)
    standings = await (await by.manager.session()).jobs.standings()
    shown, behind = part_of(standings, after, limit)
    jobs = [
        Job(name=each.name, every_seconds=each.every_s, due_in_seconds=each.due_in_s, held_by=each.held_by)
        for each in shown
    ]
    return Page(items=jobs, next_cursor=behind)


async def run(by: Writes, name: JobName) -> JobRun:
    """Run a job although it is not due, and answer when it has ended; one that runs already is left alone."""
    return JobRun.model_validate(await (await by.manager.session()).jobs.run_now(name))


async def maintain(by: Writes) -> Maintained:
    """Do everything that is due now: rotations, promotions, destructions, rewraps, leases, client keys.

    A step that fails does not stop the others, and is told in `failures`.
    """
    report, client_keys = await maintain_everything(by.manager, by.service.devices.policy)
    return Maintained.model_validate({**asdict(report), "client_keys": asdict(client_keys)})


async def list_reencryptions(
    by: Reads,
    field: Annotated[str | None, Query(pattern=r"^[^\x00]{1,400}$", description="Only those of this field.")] = None,
    limit: Limit = LIMIT,
    cursor: Cursor = None,
) -> Page[Reencryption]:
    """List re-encryptions, the oldest first. They are begun where their tables are: by `keystead reencrypt`."""
    (after,) = place_of(cursor, int) or (0,)
    shown, behind = part_of(await fields.reencryptions(by.manager, field), after, limit)
    return Page(items=[Reencryption.of(each) for each in shown], next_cursor=behind)


async def pause(by: Writes, reencryption_id: ReencryptionId) -> Reencryption:
    """Let its workers stop after the batch at hand, wherever they run."""
    return Reencryption.of(await fields.pause(by.manager, reencryption_id))


async def resume(by: Writes, reencryption_id: ReencryptionId) -> Reencryption:
    """Let a paused one go on; the next `keystead reencrypt` of its column does the work."""
    return Reencryption.of(await fields.resume(by.manager, reencryption_id))


async def cancel(by: Writes, reencryption_id: ReencryptionId) -> Reencryption:
    """End it for good; what it has written stays."""
    return Reencryption.of(await fields.cancel(by.manager, reencryption_id))


def _moment(ms: int) -> datetime:
    return datetime.fromtimestamp(ms / 1000, UTC)
