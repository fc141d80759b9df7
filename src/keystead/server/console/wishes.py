"""Registered fields: who waits for wishes of them, the last plans, and a plan or a re-encryption that is asked for."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, Final

from keystead import fields
from keystead.access.approvals import person_of
from keystead.access.callers import Scope
from keystead.fields.wishes import FieldStanding, Planned, field_standing, fields_after
from keystead.model import utc_of
from keystead.ports import WishKind, WishRecord, WishState
from keystead.server.console import jobs
from keystead.server.console.pace import Look
from keystead.server.console.pages import Deed, Done, Page, Preview, Shown
from keystead.server.console.rendering import count, far, part, span
from keystead.server.console.visits import Visit

FIELDS: Final = f"{jobs.PATH}/fields"
WISHES: Final = f"{jobs.PATH}/wishes"
SHOWN: Final = 25
_READS, _WRITES = Scope.JOBS_READ, Scope.JOBS_WRITE


def address(field_id: str) -> str:
    """Return the address below which something is asked for of a field."""
    return f"{FIELDS}/{part(field_id)}"


async def listed(visit: Visit) -> Shown:
    """Show registered fields by id: whether a worker waits, the last plan, and what was asked for last."""
    return Shown("reencryption_new.html", {"jobs": jobs.PATH, **await _fields(visit)})


async def live(visit: Visit) -> Shown:
    """Show the fields alone, for a page that is open."""
    return Shown("wishes.html", await _fields(visit))


async def _fields(visit: Visit) -> dict[str, Any]:
    asked = visit.request.query_params
    now, after = visit.service.now(), asked.get("after", "")
    look = Look.of(asked, now)
    found = await fields_after(visit.manager, after, limit=SHOWN + 1)
    shown = found[:SHOWN]
    return {
        "fields": shown,
        "after": after,
        "after_this": shown[-1].field.id if len(found) > SHOWN else None,
        "may_write": visit.may(_WRITES, is_of_store=True),
        "is_live": look.is_live(now) and any(each.unfinished is not None for each in shown),
        "seen": look.following((), now),
        "begin": jobs.BEGIN,
        "live_path": FIELDS,
        "wishes": WISHES,
        "field_address": address,
        "job_address": jobs.address,
        "when_of": utc_of,
        "length": lambda seconds: span(timedelta(seconds=seconds)),
    }


async def preview_plan(visit: Visit) -> Preview:
    """Show what asking for a plan does."""
    found = await field_standing(visit.manager, visit.path("field"))
    return Preview(
        title=f"Plan the re-encryption of {found.field.id}",
        effects=[
            "A worker counts every row by the version that it is under, decrypts the first of them, and estimates the "
            "time. Nothing is written to the table.",
            _who_takes_it(found),
        ],
        button="Plan",
        back=jobs.BEGIN,
    )


async def plan(visit: Visit) -> Done:
    """Ask for a plan."""
    return await _asked(visit, WishKind.PLAN, "A plan is asked for")


async def preview_start(visit: Visit) -> Preview:
    """Show what asking for a re-encryption does, and what the last plan has found."""
    found = await field_standing(visit.manager, visit.path("field"))
    planned = found.planned
    return Preview(
        title=f"Start the re-encryption of {found.field.id}",
        effects=[
            "Every row is brought to the active data key and the live index keys, while the application goes on using "
            "the table; its edits win. It can be paused and cancelled, and goes on where it stopped.",
            "No plan of it was made lately: nobody knows what is before it. A plan writes nothing."
            if planned is None
            else f"The last plan was made {far(planned.at, visit.service.now())}. {_told(planned)}",
            _who_takes_it(found),
        ],
        button="Start",
        back=jobs.BEGIN,
        instead=("Plan first", f"{address(found.field.id)}/plan") if planned is None else None,
    )


async def start(visit: Visit) -> Done:
    """Ask for a re-encryption."""
    return await _asked(visit, WishKind.RUN, "The re-encryption is asked for")


async def preview_cancel(visit: Visit) -> Preview:
    """Show what cancelling a wish does."""
    return Preview(
        title="Cancel what was asked for",
        effects=[
            "No worker takes it any more. One that is at it already is left alone.",
            "A re-encryption that was begun is not ended by this: its own page pauses and cancels it.",
        ],
        button="Cancel it",
        back=jobs.BEGIN,
    )


async def cancel(visit: Visit) -> Done:
    """Cancel a wish."""
    wish = await fields.cancel_wish(visit.manager, visit.path("wish"))
    return Done(jobs.BEGIN, f"It is cancelled: nothing is done to {wish.field_id}.")


async def _asked(visit: Visit, kind: WishKind, told: str) -> Done:
    wish: WishRecord = await fields.wish(visit.manager, visit.path("field"), kind, asked_by=person_of(visit.by))
    found = await field_standing(visit.manager, wish.field_id)
    is_taken = found.is_listened_to or wish.state is WishState.TAKEN
    then = "A worker takes it in a moment." if is_taken else "No worker waits for it yet."
    return Done(jobs.BEGIN, f"{told}. {then}")


def _who_takes_it(found: FieldStanding) -> str:
    listeners = found.listeners
    if listeners is not None and listeners.waiting:
        who = "A worker waits" if listeners.waiting == 1 else f"{listeners.waiting} workers wait"
        return f"{who} where the table is, and one takes it within seconds."
    return (
        "No worker waits where the table is. What is asked for stays until one does, or until it is cancelled; the "
        "page before has the command."
    )


def _told(planned: Planned) -> str:
    """Return what a plan has found, in sentences."""
    kept = planned.kept.plan
    lines = [
        f"It found {count(kept.rows)} {'row' if kept.rows == 1 else 'rows'}: {count(kept.sample_changes)} of the first "
        f"{count(kept.sample_rows)} have to be written, {count(kept.empty)} have no ciphertext.",
        f"It takes about {span(timedelta(seconds=kept.seconds))} with one worker.",
    ]
    if kept.plaintext:
        lines.append(f"{count(kept.plaintext)} are in clear and will be encrypted.")
    if kept.unfinished is not None:
        lines.append(f"Re-encryption {kept.unfinished} had not ended, and would be gone on with.")
    return " ".join(lines)


PAGES: Final = (
    Page(jobs.BEGIN, _READS, listed),
    Page(FIELDS, _READS, live, is_whole=False),
)
DEEDS: Final = (
    Deed(f"{FIELDS}/{{field:name}}/plan", _WRITES, preview_plan, plan),
    Deed(f"{FIELDS}/{{field:name}}/start", _WRITES, preview_start, start),
    Deed(f"{WISHES}/{{wish}}/cancel", _WRITES, preview_cancel, cancel),
)
