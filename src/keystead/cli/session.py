"""``keystead session``: who has signed in at the console."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

import typer

from keystead.cli import lists
from keystead.cli.frame import Call, command, group
from keystead.cli.render import Outcome, cell, pairs, printable, table
from keystead.manager.access import access
from keystead.manager.manager import KeyManager
from keystead.ports import SessionRecord


def register(app: typer.Typer) -> None:
    """Add the group."""
    noun = group(app, "session", "Sessions of people at the console: list, end.")
    command(noun, "list")(list_sessions)
    command(noun, "end")(end)


def list_sessions(
    call: Call,
    tenant: Annotated[str | None, typer.Option("--tenant", help="Only this one's.")] = None,
    after: lists.After = None,
) -> Outcome:
    """List sessions, newest first, those that have ended lately among them."""
    place = lists.newest_after(after)

    async def find(km: KeyManager) -> list[SessionRecord]:
        return await (await access(km)).sessions.all(tenant=tenant, after=place, limit=lists.LIMIT + 1)

    shown, behind = lists.newest_of(call.run(find))
    facts = [_facts(each) for each in shown]
    names = ("id", "user", "tenant", "origin", "created", "expires", "seen", "ended")
    rows = [tuple(cell(each[name]) for name in names) for each in facts]
    return Outcome({"sessions": facts, "next": behind}, table(*names, rows=rows) if rows else "no sessions")


def end(
    call: Call, session_id: Annotated[str, typer.Argument(metavar="ID", help="The session's id, as `list` shows it.")]
) -> Outcome:
    """End a session: within five seconds every node asks that browser to sign in again."""

    async def act(km: KeyManager) -> SessionRecord:
        return await (await access(km)).sessions.end(session_id)

    row = call.run(act)
    return Outcome(_facts(row), pairs([("ended", row.id), ("user", printable(row.subject))]))


def _facts(row: SessionRecord) -> dict[str, object]:
    return {
        "id": row.id,
        "user": row.subject,
        "tenant": row.tenant,
        "scopes": row.scopes,
        "origin": row.origin,
        "created": datetime.fromisoformat(row.created_at),
        "expires": datetime.fromisoformat(row.expires_at),
        "seen": row.seen_at,
        "ended": row.ended_at,
    }
