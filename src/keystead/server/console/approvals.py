"""What waits for a second person, where the store asks for two: seen, approved, refused, taken back."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, Final
from urllib.parse import quote, urlencode

from keystead.access.approvals import Approvals, Standing, asker_of, details_of, person_of, standing_of, words_of
from keystead.access.callers import Scope
from keystead.errors import ForbiddenError, KeyNotFoundError
from keystead.model import Action
from keystead.ports import ApprovalRecord
from keystead.server.console.answering import APPROVALS
from keystead.server.console.pages import Deed, Done, Page, Preview, Shown
from keystead.server.console.rendering import moment
from keystead.server.console.visits import Visit
from keystead.server.rest.shapes import newest_after, newest_of

PATH: Final = APPROVALS
SHOWN: Final = 50
_WRITES: Final = Scope.APPROVALS_WRITE
_DAY_S: Final = 86_400
ACTS: Final = {
    Action.KEY_DESTROY: "Destroy the data key",
    Action.TRANSIT_DELETE: "Delete the Transit key",
    Action.TRANSIT_TRIM: "Destroy old versions of the Transit key",
    Action.SUBJECT_FORGET: "Destroy the keys of the subject behind",
    Action.USER_FORGET: "Forget the user",
    Action.STORE_IMPORT: "Import the store",
    Action.ROLE_CREATE: "Make the role",
    Action.ROLE_DELETE: "Delete the role",
    Action.SECRET_ID_CREATE: "Make a secret id of the role",
    Action.TOKEN_CREATE: "Make a token for",
    Action.RULE_END: "Ask for two people no more:",
}


def _destroying(row: ApprovalRecord, how: Mapping[str, Any]) -> str:
    sent = {"days": how["wait_s"] // _DAY_S} | ({"without_sources": "yes"} if how["without_sources"] else {})
    return f"/console/keys/{quote(row.target, safe='')}/destroy?{urlencode(sent)}"


def _making(row: ApprovalRecord, how: Mapping[str, Any]) -> str:
    days = "" if how["lifetime_s"] is None else how["lifetime_s"] // _DAY_S
    sent = {"user": row.target, "scopes": how["scopes"], "tenant": row.tenant, "label": how["label"], "days": days}
    return f"/console/new-token?{urlencode(sent)}"


_AGAIN: Final[Mapping[str, Callable[[ApprovalRecord, Mapping[str, Any]], str]]] = {
    Action.KEY_DESTROY: _destroying,
    Action.TOKEN_CREATE: _making,
    Action.TRANSIT_DELETE: lambda row, how: f"/console/transit/{quote(row.target, safe='')}/delete",
    Action.TRANSIT_TRIM: lambda row, how: (
        f"/console/transit/{quote(row.target, safe='')}/trim?before={how['min_available']}"
    ),
    Action.USER_FORGET: lambda row, how: f"/console/users/{quote(row.target, safe='')}/forget",
}
"""Where what was approved is done, filled in as it was asked for; what is done elsewhere is not here."""


async def listed(visit: Visit) -> Shown:
    """Show what was asked for, the newest first."""
    asked = newest_after(visit.request.query_params.get("after"))
    rows = await _room(visit).all(tenant=visit.tenant, after=asked, limit=SHOWN + 1)
    page, after_this = newest_of(rows, SHOWN)
    values = {
        "approvals": [_told(visit, row) for row in page],
        "after_this": after_this,
        "address": PATH,
        "holds": await visit.manager.require_session().consent.holds(),
    }
    return Shown("approvals.html", values)


async def shown(visit: Visit) -> Shown:
    """Show exactly what somebody asks for."""
    row = await _row(visit)
    told, how = _told(visit, row), details_of(row)
    again = _AGAIN.get(row.action) if told["standing"] is Standing.APPROVED and _is_own(visit, row) else None
    values = {
        "each": told,
        "how": words_of(row),
        "again": None if again is None else again(row, how),
        "may_decide": visit.may(_WRITES) and not _is_own(visit, row),
        "is_own": _is_own(visit, row),
        "waits": told["standing"] is Standing.WAITING,
        "is_approved": told["standing"] is Standing.APPROVED,
        "address": PATH,
        "may_list": visit.may(_WRITES),
    }
    return Shown("approval.html", values)


async def preview_approve(visit: Visit) -> Preview:
    """Show what approving does."""
    row = await _row(visit)
    return Preview(
        title="Approve what was asked for",
        effects=[
            f"{_words(row)} {row.target}: {row.asked_by} asks for it, and may do it once, exactly so, until "
            f"{moment(datetime.fromisoformat(row.expires_at))}.",
            "Make sure first that it is meant: ask the person, by another way than the one the request came by.",
            "Nothing is done yet. The audit trail says that it was you who approved it.",
        ],
        button="Approve",
        back=f"{PATH}/{row.id}",
    )


async def approve(visit: Visit) -> Done:
    """Approve what was asked for."""
    row = await _room(visit).approve(visit.path("approval"), asker_of(visit.by))
    return Done(f"{PATH}/{row.id}", f"Approved. {row.asked_by} can do it now.")


async def preview_refuse(visit: Visit) -> Preview:
    """Show what refusing does."""
    row = await _row(visit)
    return Preview(
        title="Refuse what was asked for",
        effects=[
            f"{_words(row)} {row.target}: it is not done, and {row.asked_by} is told who refused it. It can be asked "
            "for again when the day is over.",
        ],
        button="Refuse",
        back=f"{PATH}/{row.id}",
    )


async def refuse(visit: Visit) -> Done:
    """Refuse what was asked for."""
    row = await _room(visit).refuse(visit.path("approval"), asker_of(visit.by))
    return Done(f"{PATH}/{row.id}", "Refused. Nothing was done.")


async def preview_withdraw(visit: Visit) -> Preview:
    """Show what taking it back does."""
    row = await _row(visit)
    return Preview(
        title="Take back what you asked for",
        effects=[f"{_words(row)} {row.target}: nobody is asked any more, and nothing is done."],
        button="Take it back",
        back=f"{PATH}/{row.id}",
    )


async def withdraw(visit: Visit) -> Done:
    """Take back what the visitor asked for."""
    row = await _row(visit)
    if not _is_own(visit, row):
        raise ForbiddenError("this was asked for by somebody else")
    await _room(visit).refuse(row.id, asker_of(visit.by))
    return Done(f"{PATH}/{row.id}", "Taken back. Nothing was done.")


async def _row(visit: Visit) -> ApprovalRecord:
    """Return what the page is about, if the visitor approves such things or has asked for it."""
    row = await _room(visit).get(visit.path("approval"), tenant=visit.tenant)
    if not visit.may(_WRITES) and not _is_own(visit, row):
        raise KeyNotFoundError("you have not asked for anything under this id")
    return row


def _room(visit: Visit) -> Approvals:
    return visit.service.access.approvals


def _is_own(visit: Visit, row: ApprovalRecord) -> bool:
    return row.asked_by == person_of(visit.by)


def _words(row: ApprovalRecord) -> str:
    return ACTS[Action(row.action)]


def _told(visit: Visit, row: ApprovalRecord) -> dict[str, Any]:
    return {
        "row": row,
        "words": _words(row),
        "standing": standing_of(row, visit.service.now()),
        "asked_at": datetime.fromisoformat(row.created_at),
        "until": datetime.fromisoformat(row.expires_at),
        "decided_at": datetime.fromisoformat(row.decided_at) if row.decided_at else None,
    }


PAGES: Final = (
    Page(PATH, _WRITES, listed, is_of_store=False, title="Approvals", group="Access"),
    Page(f"{PATH}/{{approval}}", None, shown, is_of_store=False),
)
DEEDS: Final = (
    Deed(f"{PATH}/{{approval}}/approve", _WRITES, preview_approve, approve, is_of_store=False),
    Deed(f"{PATH}/{{approval}}/refuse", _WRITES, preview_refuse, refuse, is_of_store=False),
    Deed(f"{PATH}/{{approval}}/withdraw", None, preview_withdraw, withdraw, is_of_store=False),
)
