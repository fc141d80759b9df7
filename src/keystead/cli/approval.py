"""``keystead approval``: what waits for a second person, where a store asks for two."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from keystead.access.approvals import Standing, details_of, standing_of, words_of
from keystead.cli import lists
from keystead.cli.asking import asking, desk
from keystead.cli.frame import Call, command, group
from keystead.cli.render import Outcome, pairs, printable, table
from keystead.manager.manager import KeyManager
from keystead.ports import ApprovalRecord

Id = Annotated[str, typer.Argument(metavar="ID", help="What was asked for, as `list` shows it.")]


def register(app: typer.Typer) -> None:
    """Add the group."""
    noun = group(app, "approval", "What waits for a second person's approval.")
    command(noun, "list")(list_approvals)
    command(noun, "show")(show)
    command(noun, "approve")(approve)
    command(noun, "refuse")(refuse)
    command(noun, "end")(end)


def list_approvals(
    call: Call,
    everything: Annotated[bool, typer.Option("--all", help="Also what is answered, done or over.")] = False,
    after: lists.After = None,
) -> Outcome:
    """List what waits for somebody's approval, or has it and was not done yet; the newest first."""
    place = lists.newest_after(after)

    async def find(km: KeyManager) -> list[ApprovalRecord]:
        return await (await desk(km)).approvals.all(after=place, limit=lists.LIMIT + 1)

    now = datetime.now(UTC)
    open_ones = (Standing.WAITING, Standing.APPROVED)
    looked_at, behind = lists.newest_of(call.run(find, is_opened=False))
    found = [row for row in looked_at if everything or standing_of(row, now) in open_ones]
    facts = [_facts(row) for row in found]
    names = ("id", "standing", "act", "target", "asked_by", "until")
    rows = [tuple(printable(str(each[name])) for name in names) for each in facts]
    return Outcome({"approvals": facts, "next": behind}, table(*names, rows=rows) if rows else "nothing waits")


def show(call: Call, approval_id: Id) -> Outcome:
    """Tell exactly what somebody asks for, and what was said to it."""

    async def find(km: KeyManager) -> ApprovalRecord:
        return await (await desk(km)).approvals.get(approval_id)

    return _told(call.run(find, is_opened=False))


def approve(call: Call, approval_id: Id) -> Outcome:
    """Say yes to what somebody else asks for; they do it by asking again for exactly the same.

    Who you are is what the token in KEYSTEAD_TOKEN says, which has the scope approvals:write.
    """

    async def act(km: KeyManager) -> ApprovalRecord:
        place = await desk(km)
        return await place.approvals.approve(approval_id, await place.answering())

    return _told(call.run(act, is_opened=False))


def refuse(call: Call, approval_id: Id) -> Outcome:
    """Say no to what somebody asks for, or take back what you asked for yourself."""

    async def act(km: KeyManager) -> ApprovalRecord:
        place = await desk(km)
        return await place.approvals.refuse(approval_id, await place.answering())

    return _told(call.run(act, is_opened=False))


def end(call: Call) -> Outcome:
    """Have the store ask for two people no more, which itself takes two."""

    async def act(km: KeyManager) -> None:
        async with asking(km):
            await km.require_session().consent.end()

    call.run(act)
    return Outcome({"two_person": False}, "this store does not ask for two people any more")


def _told(row: ApprovalRecord) -> Outcome:
    facts = _facts(row)
    told = [(name.replace("_", " "), str(value)) for name, value in facts.items() if value != "" and name != "details"]
    return Outcome(facts, pairs([(name, printable(value)) for name, value in [*told, *words_of(row)]]))


def _facts(row: ApprovalRecord) -> dict[str, Any]:
    return {
        "id": row.id,
        "standing": standing_of(row, datetime.now(UTC)).value,
        "act": row.action,
        "target": row.target,
        "tenant": row.tenant,
        "asked_by": row.asked_by,
        "asked": row.created_at,
        "until": row.expires_at,
        "decided_by": row.decided_by,
        "decided": row.decided_at,
        "details": details_of(row),
    }
