"""Jobs that run from time to time, and re-encryptions of live tables: how far they are, and what is done to them."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any, Final

from keystead import fields
from keystead.access.callers import Scope
from keystead.errors import InvalidInputError, KeyNotFoundError
from keystead.fields.commands import command_of
from keystead.fields.standing import ReencryptionStanding, failures, standing, standings
from keystead.jobs.runner import JobStanding
from keystead.manager.devices import maintain_everything
from keystead.model import utc_of
from keystead.model.counts import counted
from keystead.ports import ReencryptionState
from keystead.server.console.pace import Look
from keystead.server.console.pages import Deed, Done, Page, Preview, Shown
from keystead.server.console.rendering import part, span
from keystead.server.console.visits import Visit

PATH: Final = "/console/jobs"
REENCRYPTIONS: Final = f"{PATH}/reencryptions"
BEGIN: Final = f"{PATH}/new-reencryption"
MAINTAIN: Final = f"{PATH}/maintain"
SHOWN: Final = 25
_READS, _WRITES = Scope.JOBS_READ, Scope.JOBS_WRITE
_WHAT: Final = {
    "keystead.access": "Removes secret ids, tokens, sessions, approvals and wishes that ended long ago.",
    "keystead.client_keys": "Ends key pairs of devices when their time is over, and erases what nobody needs any more.",
    "keystead.maintain": "Does everything that is due: rotations, promotions, destructions, rewraps, expired leases.",
    "keystead.promote": "Lets new versions encrypt once every node has loaded them.",
    "keystead.rotate": "Makes a new version of each keyring whose active one is due.",
    "keystead.transit": "Rotates keys of the machine API that are due.",
}
_UNFINISHED: Final = (ReencryptionState.RUNNING, ReencryptionState.PAUSED)
_RUNS_THERE: Final = (
    "The service holds no declaration of the application's table and no way to its database: the work is done where "
    "`keystead reencrypt` runs."
)


def address(job_id: str) -> str:
    """Return the address of a re-encryption's page."""
    return f"{REENCRYPTIONS}/{part(job_id)}"


async def listed(visit: Visit) -> Shown:
    """Show the jobs of this node, and re-encryptions, the newest first."""
    jobs = await (await visit.manager.session()).jobs.standings()
    now = visit.service.now()
    values = {
        "jobs": [(each, _WHAT.get(each.name, ""), now + timedelta(seconds=each.due_in_s)) for each in jobs],
        "path": PATH,
        "begin": BEGIN,
        "maintain": MAINTAIN,
        "may_write": visit.may(_WRITES, is_of_store=True),
        **await _reencryptions(visit, now),
    }
    return Shown("jobs.html", values)


async def live_list(visit: Visit) -> Shown:
    """Show re-encryptions alone, for a page that is open."""
    return Shown("reencryptions.html", await _reencryptions(visit, visit.service.now()))


async def shown(visit: Visit) -> Shown:
    """Show a re-encryption: how far it is, how fast, which rows it has left, and what goes on with it."""
    found = await standing(visit.manager, visit.path("reencryption"))
    values = {
        **_progress(visit, found),
        "may_write": visit.may(_WRITES, is_of_store=True),
        "jobs": PATH,
    }
    return Shown("reencryption.html", {**values, "failed": await failures(visit.manager, found.job.id)})


async def live(visit: Visit) -> Shown:
    """Show how far a re-encryption is, for a page that is open."""
    values = _progress(visit, await standing(visit.manager, visit.path("reencryption")))
    state = values["found"].job.state.value
    return Shown("progress.html", {**values, "has_changed": visit.request.query_params.get("state", state) != state})


async def _reencryptions(visit: Visit, now: datetime) -> dict[str, Any]:
    asked = visit.request.query_params
    look = Look.of(asked, now)
    found = await standings(visit.manager, before=_after(asked.get("after", "")), limit=SHOWN + 1)
    page = found[:SHOWN]
    last = page[-1].job if len(found) > SHOWN else None
    seen = look.following(page, now)
    return {
        "reencryptions": [(each, _began(each), _pace(each, look, now)) for each in page],
        "after_this": None if last is None else f"{last.created_ms},{last.id}",
        "after": asked.get("after", ""),
        "is_live": look.is_live(now) and any(each.job.state is ReencryptionState.RUNNING for each in page),
        "seen": seen,
        "address": address,
        "list_path": PATH,
        "live_path": REENCRYPTIONS,
    }


def _progress(visit: Visit, found: ReencryptionStanding) -> dict[str, Any]:
    now = visit.service.now()
    look = Look.of(visit.request.query_params, now)
    return {
        "found": found,
        "began": _began(found),
        "lasted": None if found.lasted_s is None else span(timedelta(seconds=found.lasted_s)),
        "pace": _pace(found, look, now),
        # Also while nobody works on it: whoever has let it go on sees its workers begin.
        "is_live": look.is_live(now) and found.job.state is ReencryptionState.RUNNING,
        "command": command_of(found.job),
        "is_unfinished": found.job.state in _UNFINISHED,
        "has_changed": False,
        "seen": f"{look.following([found], now)}&state={found.job.state.value}",
        "at": address(found.job.id),
    }


def _pace(found: ReencryptionStanding, look: Look, now: datetime) -> tuple[str, str]:
    """Return how many rows a second are read, and how long the rest takes; empty where nobody can tell."""
    rate = look.rows_per_s(found, now) if found.is_worked_on else None
    left = found.seconds_left(rate)
    return "" if rate is None else f"{rate:,.0f}".replace(",", "\u202f"), "" if left is None else span(
        timedelta(seconds=left)
    )


def _began(found: ReencryptionStanding) -> datetime:
    return utc_of(found.job.created_ms)


def _after(text: str) -> tuple[int, str] | None:
    made, comma, job_id = text.partition(",")
    if not comma:
        return None
    if not (made.isascii() and made.isdecimal() and len(made) < 16):
        raise InvalidInputError("this is no page of the list; begin at the first one")
    return int(made), job_id


async def preview_run(visit: Visit) -> Preview:
    """Show what running a job now does."""
    job = await _job(visit)
    held = f"{job.held_by} runs it now: it is left alone." if job.held_by else "No node runs it now."
    return Preview(
        title=f"Run {job.name} now",
        effects=[
            _WHAT.get(job.name, "It does what it does from time to time."),
            f"It runs on this node, although it is due only in {span(timedelta(seconds=job.due_in_s))}. {held}",
            "The answer comes when it has ended.",
        ],
        button="Run it",
        back=PATH,
    )


async def run(visit: Visit) -> Done:
    """Run a job now."""
    report = await (await visit.manager.session()).jobs.run_now((await _job(visit)).name)
    told = {
        "done": f"{report.name} was run.",
        "held": f"{report.name} runs already, here or on another node, and was left alone.",
    }
    failed = f"{report.name} failed: {report.error_code}. The service's log has more; it is tried again when it is due."
    return Done(PATH, told.get(report.outcome, failed))


async def preview_maintain(visit: Visit) -> Preview:
    """Show what maintaining does."""
    return Preview(
        title="Do everything that is due",
        effects=[
            "Keyrings that are due are rotated, and versions that every node has loaded encrypt.",
            "Versions whose wait is over are erased for good, where nothing is under them any more.",
            "Keys under an old WRAP key are wrapped anew; leases and key pairs of devices whose time is over end.",
            "A step that fails does not stop the others.",
        ],
        button="Do it now",
        back=PATH,
    )


async def maintain(visit: Visit) -> Done:
    """Do everything that is due."""
    report, pairs = await maintain_everything(visit.manager, visit.service.devices.policy)
    told = (
        f"{counted(report.rotated, 'keyring')} rotated, {counted(report.promoted, 'version')} promoted, "
        f"{report.destroyed} destroyed, {counted(report.rewrapped, 'key')} rewrapped, "
        f"{counted(pairs.erased, 'key pair')} of devices erased."
    )
    wrong = "; ".join(f"{step}: {code}" for step, code in sorted(report.failures.items()))
    return Done(PATH, f"{told} What failed: {wrong}." if wrong else told)


async def preview_pause(visit: Visit) -> Preview:
    """Show what pausing does."""
    found = await standing(visit.manager, visit.path("reencryption"))
    return _preview(
        found,
        f"Pause the re-encryption of {found.job.field_id}",
        ["Its workers stop after the batch at hand, wherever they run; what they have written stays.", _far(found)],
        "Pause",
    )


async def pause(visit: Visit) -> Done:
    """Pause a re-encryption."""
    job = await fields.pause(visit.manager, visit.path("reencryption"))
    return Done(address(job.id), "It is paused: its workers stop after the batch at hand.")


async def preview_resume(visit: Visit) -> Preview:
    """Show what resuming does."""
    found = await standing(visit.manager, visit.path("reencryption"))
    return _preview(
        found,
        f"Let the re-encryption of {found.job.field_id} go on",
        [
            "Workers that wait for wishes of this field go on where it stopped, and so do those that are started from "
            "now on. None is started by this.",
            f"{_RUNS_THERE} Its page has the command.",
        ],
        "Let it go on",
    )


async def resume(visit: Visit) -> Done:
    """Let a re-encryption go on."""
    job = await fields.resume(visit.manager, visit.path("reencryption"))
    told = "It may go on: a worker that waits takes it up. Where none does, run its command where the application's "
    return Done(address(job.id), f"{told}database is reached.")


async def preview_cancel(visit: Visit) -> Preview:
    """Show what cancelling does."""
    found = await standing(visit.manager, visit.path("reencryption"))
    return _preview(
        found,
        f"Cancel the re-encryption of {found.job.field_id}",
        [
            "It ends for good, after the batches at hand. What it has written stays, and every row stays readable.",
            "Rows that it has not come to stay under the keys that they are under: no version of theirs can be "
            "destroyed before another re-encryption has gone through the table.",
            _far(found),
        ],
        "Cancel it",
        typed=found.job.id,
    )


async def cancel(visit: Visit) -> Done:
    """End a re-encryption."""
    job = await fields.cancel(visit.manager, visit.path("reencryption"))
    return Done(address(job.id), "It has ended; what it had written stays.")


def _preview(
    found: ReencryptionStanding, title: str, effects: list[str], button: str, typed: str | None = None
) -> Preview:
    return Preview(title=title, effects=effects, button=button, back=address(found.job.id), typed=typed)


def _far(found: ReencryptionStanding) -> str:
    rows = "an unknown number of" if found.rows is None else f"{found.rows}"
    return f"{found.totals.read} of {rows} rows were looked at by now, and {found.totals.rewritten} written anew."


async def _job(visit: Visit) -> JobStanding:
    name = visit.path("job")
    for each in await (await visit.manager.session()).jobs.standings():
        if each.name == name:
            return each
    raise KeyNotFoundError(f"no job {name!r} runs on this node; the page of jobs shows those that do")


PAGES: Final = (
    Page(PATH, _READS, listed, title="Jobs"),
    Page(REENCRYPTIONS, _READS, live_list, is_whole=False),
    Page(f"{REENCRYPTIONS}/{{reencryption}}", _READS, shown),
    Page(f"{REENCRYPTIONS}/{{reencryption}}/progress", _READS, live, is_whole=False),
)
DEEDS: Final = (
    Deed(MAINTAIN, _WRITES, preview_maintain, maintain),
    Deed(f"{PATH}/{{job}}/run", _WRITES, preview_run, run),
    Deed(f"{REENCRYPTIONS}/{{reencryption}}/pause", _WRITES, preview_pause, pause),
    Deed(f"{REENCRYPTIONS}/{{reencryption}}/resume", _WRITES, preview_resume, resume),
    Deed(f"{REENCRYPTIONS}/{{reencryption}}/cancel", _WRITES, preview_cancel, cancel),
)
