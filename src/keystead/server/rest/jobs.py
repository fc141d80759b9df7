"""``/v1/jobs``, ``/v1/maintain`` and ``/v1/reencryptions``: what is done from time to time, and to live tables."""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime
from enum import Enum
from typing import Annotated, Final, Literal

from fastapi import APIRouter, Depends, Path, Query
from pydantic import Field

from keystead import fields
from keystead.access.callers import Scope
from keystead.fields.commands import command_of
from keystead.fields.standing import failures, standing
from keystead.jobs.runner import JobStanding
from keystead.manager.devices import maintain_everything
from keystead.model import utc_of
from keystead.ports import MAX_FAILURES, ReencryptionRecord, ReencryptionState
from keystead.server.admin import Admin
from keystead.server.rest.answers import ABSENT, CONFLICT, answers
from keystead.server.rest.door import Needs
from keystead.server.rest.shapes import LIMIT, Cursor, Limit, Page, Told, page_of, part_of, place_of

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


class JobEnded(Told):
    """How a job ended last, on whichever process."""

    node: str = Field(description="The process that ran it.")
    error_code: str | None = Field(description="Why it failed, as the page of errors has it; null where it did not.")
    ended_at: datetime
    seconds: float = Field(description="How long it took.")


class Job(Told):
    """A job of the process that answers; each runs in one process at a time."""

    name: str = Field(examples=["keystead.maintain"])
    every_seconds: float = Field(description="How often a process begins it.")
    due_in_seconds: float = Field(description="When the process that answers begins it again.")
    held_by: str | None = Field(description="The process that runs it now.")
    last_run: JobEnded | None

    @classmethod
    def of(cls, job: JobStanding) -> Job:
        """Return what is told of a job."""
        run = job.last
        ended = None
        if run is not None:
            ended = JobEnded(
                node=run.node, error_code=run.error_code, ended_at=run.ended_at, seconds=run.duration_ms / 1000
            )
        return cls(
            name=job.name,
            every_seconds=job.every_s,
            due_in_seconds=job.due_in_s,
            held_by=job.held_by,
            last_run=ended,
        )


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
            created_at=utc_of(record.created_ms),
            updated_at=utc_of(record.updated_ms),
        )


class LeftRow(Told):
    """A row that was left as it was."""

    key: str = Field(description="Its key, as JSON.", examples=["[17]"])
    reason: str = Field(description="Why, as the page of errors has it.")


class ReencryptionReport(Reencryption):
    """A re-encryption, and how far it is over all its workers, wherever they run."""

    read: int
    rewritten: int
    skipped: int = Field(description="Rows of which nothing had to be done.")
    contended: int = Field(description="Rows that were edited or held meanwhile, and looked at again.")
    failed: int = Field(description="Rows that were left as they are.")
    erased: int = Field(description="Rows of forgotten subjects.")
    failures: list[LeftRow] = Field(max_length=MAX_FAILURES, description="The first of the rows that failed.")
    is_worked_on: bool
    seconds: float | None = Field(description="From its beginning to its end, pauses among it; null before that.")
    command: str | None = Field(description="What goes on with it, or does it again, where its table is.")


def register(router: APIRouter) -> None:
    """Add the routes."""
    router.get("/jobs", tags=_TAGS, operation_id="listJobs")(list_jobs)
    router.post("/jobs/{name}/run", tags=_TAGS, operation_id="runJob", responses=answers(ABSENT))(run)
    router.post("/maintain", tags=_TAGS, operation_id="maintain")(maintain)
    router.get("/reencryptions", tags=_TAGS, operation_id="listReencryptions")(list_reencryptions)
    one = "/reencryptions/{reencryptionId}"
    router.get(one, tags=_TAGS, operation_id="showReencryption", responses=answers(ABSENT))(show)
    changing = answers(ABSENT, CONFLICT)
    for word, function in (("pause", pause), ("resume", resume), ("cancel", cancel)):
        router.post(f"{one}/{word}", tags=_TAGS, operation_id=f"{word}Reencryption", responses=changing)(function)


async def list_jobs(by: Reads, limit: Limit = LIMIT, cursor: Cursor = None) -> Page[Job]:
    """List the jobs that run from time to time, by name."""
    (after,) = place_of(cursor, int) or (0,)
    standings = await (await by.manager.session()).jobs.standings()
    shown, behind = part_of(standings, after, limit)
    return Page(items=[Job.of(each) for each in shown], next_cursor=behind)


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
    place = place_of(cursor, int, str)
    after = None if place is None else (place[0], place[1])
    found = await fields.reencryptions(by.manager, field, after=after, limit=limit + 1)
    shown, behind = page_of(found, limit, lambda each: (each.created_ms, each.id))
    return Page(items=[Reencryption.of(each) for each in shown], next_cursor=behind)


async def show(by: Reads, reencryption_id: ReencryptionId) -> ReencryptionReport:
    """Tell how far a re-encryption is, or how it ended: the same on every node, and after a restart."""
    found = await standing(by.manager, reencryption_id)
    totals = found.totals
    return ReencryptionReport(
        **Reencryption.of(found.job).model_dump(),
        read=totals.read,
        rewritten=totals.rewritten,
        skipped=totals.skipped,
        contended=totals.contended,
        failed=totals.failed,
        erased=totals.erased,
        failures=[LeftRow.model_validate(each) for each in await failures(by.manager, reencryption_id)],
        is_worked_on=found.is_worked_on,
        seconds=found.lasted_s,
        command=command_of(found.job),
    )


async def pause(by: Writes, reencryption_id: ReencryptionId) -> Reencryption:
    """Let its workers stop after the batch at hand, wherever they run."""
    return Reencryption.of(await fields.pause(by.manager, reencryption_id))


async def resume(by: Writes, reencryption_id: ReencryptionId) -> Reencryption:
    """Let a paused one go on; a worker that waits, or the next `keystead reencrypt` of its column, does the work."""
    return Reencryption.of(await fields.resume(by.manager, reencryption_id))


async def cancel(by: Writes, reencryption_id: ReencryptionId) -> Reencryption:
    """End it for good; what it has written stays."""
    return Reencryption.of(await fields.cancel(by.manager, reencryption_id))
