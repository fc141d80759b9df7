"""API tokens, made once and shown once, and sessions at the console."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final

from keystead.access.callers import Scope, scopes_of
from keystead.errors import InvalidInputError
from keystead.server.admin import tenant_of
from keystead.server.console.pages import Deed, Done, Input, Page, Preview, Shown
from keystead.server.console.visits import Visit
from keystead.server.rest.shapes import newest_after, newest_of

PATH: Final = "/console/tokens"
SESSIONS: Final = "/console/sessions"
SHOWN: Final = 50
_WRITES: Final = Scope.TOKENS_WRITE
_LIVES: Final = (("1", "one day"), ("30", "30 days"), ("90", "90 days"), ("365", "a year"), ("", "no end"))


async def listed(visit: Visit) -> Shown:
    """Show tokens, the newest first; none is shown itself."""
    rows = await visit.service.tokens.all(tenant=visit.tenant, after=_after(visit), limit=SHOWN + 1)
    page, after_this = newest_of(rows, SHOWN)
    values = {
        "tokens": [(row, _time(row.created_at), _time(row.expires_at)) for row in page],
        "after_this": after_this,
        "address": PATH,
    }
    return Shown("tokens.html", values)


async def sessions(visit: Visit) -> Shown:
    """Show who has signed in, the last first."""
    rows = await visit.service.access.sessions.all(tenant=visit.tenant, after=_after(visit), limit=SHOWN + 1)
    page, after_this = newest_of(rows, SHOWN)
    values = {
        "sessions": [(row, _time(row.created_at), _time(row.expires_at)) for row in page],
        "after_this": after_this,
        "own": None if visit.session is None else visit.session.id,
        "address": SESSIONS,
    }
    return Shown("sessions.html", values)


async def preview_new(visit: Visit) -> Preview:
    """Show what making a token does."""
    return Preview(
        title="New token",
        effects=[
            "A token is made and shown on the next page, once: nobody can look it up later.",
            "Whoever shows it may do what its scopes name, until it ends or is revoked.",
            f"Scopes there are: {', '.join(sorted(Scope))}, and transit:<operation>:<key glob>.",
        ],
        button="Make the token",
        back=PATH,
        inputs=(
            Input("user", "User or program", hint="Who shows it, as the audit trail names them", is_required=True),
            Input("scopes", "Scopes", hint="With spaces between: keyrings:read audit:read", is_required=True),
            Input("tenant", "Tenant", hint="Empty where there are none", value=visit.tenant or ""),
            Input("label", "Label", hint="What it is for"),
            Input("days", "Good for", "select", "90", options=_LIVES),
        ),
    )


async def make(visit: Visit) -> Shown:
    """Make a token, and show it this once."""
    sent = visit.fields
    days = sent.get("days", "")
    if days not in dict(_LIVES):
        raise InvalidInputError("choose how long the token is good from the list")
    made = await visit.service.tokens.create(
        sent.get("user", "").strip(),
        scopes_of(sent.get("scopes", "").split()),
        tenant=tenant_of(visit, sent.get("tenant", "").strip() or None) or "",
        label=sent.get("label", "").strip(),
        lifetime=timedelta(days=int(days)) if days else None,
    )
    return Shown("new_token.html", {"text": "".join(made.text), "row": made.row, "back": PATH})


async def preview_revoke(visit: Visit) -> Preview:
    """Show what revoking does."""
    row = await visit.service.tokens.get(visit.path("token"), tenant=visit.tenant)
    return Preview(
        title=f"Revoke the token {row.id}",
        effects=[
            f"It is that of {row.subject}" + (f", for {row.label}." if row.label else "."),
            "Within five seconds every node refuses it, and sessions that it began end.",
            "It cannot be taken back: whoever needs one gets a new token.",
        ],
        button="Revoke",
        back=PATH,
        typed=row.id,
    )


async def revoke(visit: Visit) -> Done:
    """Revoke a token."""
    row = await visit.service.tokens.revoke(visit.path("token"), tenant=visit.tenant)
    return Done(PATH, f"The token {row.id} of {row.subject} is refused from now on.")


async def preview_end(visit: Visit) -> Preview:
    """Show what ending a session does."""
    return Preview(
        title=f"End the session {visit.path('session')}",
        effects=["Within five seconds every node asks that browser to sign in again.", "Tokens are not touched."],
        button="End the session",
        back=SESSIONS,
    )


async def end(visit: Visit) -> Done:
    """End a session."""
    row = await visit.service.access.sessions.end(visit.path("session"), tenant=visit.tenant)
    return Done(SESSIONS, f"The session {row.id} of {row.subject} has ended.")


def _after(visit: Visit) -> tuple[str, str] | None:
    return newest_after(visit.request.query_params.get("after"))


def _time(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)


PAGES: Final = (
    Page(PATH, _WRITES, listed, is_of_store=False, title="Tokens", group="Access"),
    Page(SESSIONS, _WRITES, sessions, is_of_store=False, title="Sessions", group="Access"),
)
DEEDS: Final = (
    Deed("/console/new-token", _WRITES, preview_new, make, is_of_store=False),
    Deed(f"{PATH}/{{token}}/revoke", _WRITES, preview_revoke, revoke, is_of_store=False),
    Deed(f"{SESSIONS}/{{session}}/end", _WRITES, preview_end, end, is_of_store=False),
)
