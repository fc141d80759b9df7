"""Wishes at the command line: asking for a re-encryption where its table is not reached, and waiting where it is."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Annotated, Any

import typer
from rich.console import Group
from rich.text import Text

from keystead import fields
from keystead.cli.asking import who_asks
from keystead.cli.frame import Call, command, say
from keystead.cli.importing import Wish
from keystead.cli.render import Outcome, moment, pairs, printable, table
from keystead.fields import Field
from keystead.fields.plan_text import KeptPlan, parse_plan
from keystead.fields.wishes import FieldStanding, field_standing
from keystead.manager.manager import KeyManager
from keystead.model import utc_of
from keystead.ports import WishKind, WishRecord, WishState

FieldId = Annotated[str, typer.Argument(metavar="FIELD", help="The field, as `keystead field list` shows it.")]


def register(noun: typer.Typer) -> None:
    """Add the commands to the group of re-encryptions."""
    command(noun, "ask")(ask)
    command(noun, "wishes")(list_wishes)
    command(noun, "withdraw")(withdraw)


def ask(
    call: Call,
    field: FieldId,
    *,
    plan: Annotated[bool, typer.Option("--plan", help="Only count the rows and estimate the time.")] = False,
) -> Outcome:
    """Ask for the re-encryption of a registered field, of a worker that waits where its table is.

    Such a worker is `keystead reencrypt URL TABLE.COLUMN --wait`. Whether one waits is said in the answer.
    """

    async def act(km: KeyManager) -> tuple[WishRecord, FieldStanding]:
        kind = WishKind.PLAN if plan else WishKind.RUN
        asked = await fields.wish(km, field, kind, asked_by=await who_asks(km))
        return asked, await field_standing(km, field)

    asked, standing = call.run(act)
    what = "a plan" if plan else "a re-encryption"
    text = f"{what} of {printable(field)} is asked for, under the id {asked.id}\n{_listening(standing)}"
    return Outcome({**_facts(asked), **_around(standing)}, text)


def list_wishes(call: Call, field: FieldId) -> Outcome:
    """Show whether a worker waits for wishes of a field, what was asked for lately, and the last plan."""
    found = call.run(lambda km: field_standing(km, field))
    rows = [
        (
            each.id,
            each.kind,
            each.state,
            printable(each.asked_by) or "-",
            moment(utc_of(each.asked_ms)),
            each.job_id or each.error_code or "-",
        )
        for each in found.wishes
    ]
    lines = [_listening(found)]
    if found.planned is not None:
        lines += ["", f"planned {moment(found.planned.at)}", kept_plan_text(found.planned.kept)]
    data = {**_around(found), "wishes": [_facts(each) for each in found.wishes]}
    shown = table("id", "what", "state", "asked by", "asked", "became", rows=rows)
    told = Text("\n".join([*lines, "" if rows else "nothing was asked for lately"]))
    return Outcome(data, Group(told, shown) if rows else told)


def withdraw(call: Call, wish: Annotated[str, typer.Argument(metavar="ID", help="As `wishes` shows it.")]) -> Outcome:
    """Take back what was asked for, while no worker is at it."""
    record = call.run(lambda km: fields.cancel_wish(km, wish))
    return Outcome(_facts(record), f"{wish} is cancelled")


async def wait(url: str, field: Field, old: Wish, km: KeyManager, **options: Any) -> int:
    """Wait for wishes of a field until the process is told to end; return how many were done."""
    done = 0

    def told(wish: WishRecord) -> None:
        nonlocal done
        done += wish.state is not WishState.TAKEN
        _tell(wish)

    async with old.opened(km) as reading, _ends_by_signal():
        say(f"waiting for wishes of {field.id}; SIGTERM ends it after the batch at hand")
        with contextlib.suppress(asyncio.CancelledError):
            await fields.serve_wishes(km, url, field, importer=reading, on_wish=told, **options)
    return done


def kept_plan_text(kept: KeptPlan) -> str:
    """Return a plan for a person."""
    found = kept.plan
    lines: list[tuple[str, object]] = [("rows", found.rows)]
    lines += [
        (f"{each.keyring} v{each.version}" if each.keyring else _unknown(each.data_key_id), each.rows)
        for each in found.versions
    ]
    if kept.other_versions:
        lines.append((f"{kept.other_versions} versions more", kept.other_rows))
    lines += [("without a ciphertext", found.empty)]
    if found.erased:
        lines.append(("of forgotten subjects", found.erased))
    if found.plaintext:
        lines.append(("in clear", found.plaintext))
    lines.append(("to write", f"{found.sample_changes} of the first {found.sample_rows}"))
    lines.append(("estimate", str(timedelta(seconds=round(found.seconds)))))
    if found.unfinished is not None:
        lines.append(("unfinished job", found.unfinished))
    return printable(pairs(lines))


def _unknown(data_key_id: int) -> str:
    return f"unknown data key {data_key_id}" if data_key_id else "no ciphertext of ours"


def _listening(standing: FieldStanding) -> str:
    listeners = standing.listeners
    if listeners is not None and listeners.waiting:
        since = "" if listeners.since_ms is None else f" since {moment(utc_of(listeners.since_ms))}"
        number = "a worker waits" if listeners.waiting == 1 else f"{listeners.waiting} workers wait"
        return f"{number} for wishes of it{since}"
    seen = "" if listeners is None else f", and none was seen after {moment(utc_of(listeners.seen_ms))}"
    if standing.command is None:
        return f"no worker waits for it{seen}; the application has one by keystead.fields.serve_wishes"
    declares = "" if standing.is_whole else " and what else the application declares"
    return printable(f"no worker waits for it{seen}; where its table is, run{declares}:\n  {standing.command} --wait")


def _around(standing: FieldStanding) -> dict[str, Any]:
    return {
        "field": standing.field.id,
        "listeners": standing.listeners,
        "command": standing.command,
        "plan": standing.planned,
    }


def _facts(wish: WishRecord) -> dict[str, Any]:
    kept = parse_plan(wish.plan)
    return {
        "id": wish.id,
        "kind": wish.kind,
        "state": wish.state,
        "asked_by": wish.asked_by,
        "asked_at": utc_of(wish.asked_ms),
        "ended_at": None if wish.ended_ms is None else utc_of(wish.ended_ms),
        "worker": wish.worker,
        "job": wish.job_id,
        "error_code": wish.error_code,
        "plan": kept,
    }


def _tell(wish: WishRecord) -> None:
    what = f"{wish.kind} {wish.id}"
    if wish.state is WishState.TAKEN:
        say(printable(f"{what}: asked for by {wish.asked_by or 'somebody'}, taken"))
    elif wish.state is WishState.FAILED:
        say(f"{what}: failed, {wish.error_code}")
    else:
        say(f"{what}: done" + (f", re-encryption {wish.job_id}" if wish.job_id else ""))


@asynccontextmanager
async def _ends_by_signal() -> AsyncIterator[None]:
    """Cancel the block when the process is told to end; what it was at is left so that it can be gone on with."""
    loop, here = asyncio.get_running_loop(), asyncio.current_task()
    # Windows has no handlers of a loop: there a process that ends is killed, and its work is gone on with.
    with contextlib.suppress(NotImplementedError):
        loop.add_signal_handler(signal.SIGTERM, lambda: here is not None and here.cancel())
    try:
        yield
    finally:
        with contextlib.suppress(NotImplementedError):
            loop.remove_signal_handler(signal.SIGTERM)
