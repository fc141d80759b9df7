"""``/v1/sessions``: who has signed in at the console. The words are those of ``keystead session``."""

from __future__ import annotations

from datetime import datetime
from enum import Enum
from typing import Annotated, Final

from fastapi import APIRouter, Depends, Path, Query
from pydantic import Field

from keystead.access.callers import Scope
from keystead.ports import SessionRecord
from keystead.server.admin import Admin, tenant_of
from keystead.server.rest.answers import ABSENT, answers
from keystead.server.rest.door import Needs
from keystead.server.rest.shapes import LIMIT, SHORT_ID, Cursor, Limit, Page, Subject, Told, newest_after, newest_of

_TAGS: Final[list[str | Enum]] = ["sessions"]
Writes = Annotated[Admin, Depends(Needs(Scope.TOKENS_WRITE))]
SessionId = Annotated[
    str, Path(alias="sessionId", pattern=SHORT_ID, description="The session's id.", examples=["0123456789abcdef"])
]


class Session(Told):
    """Somebody's session at the console, without its secret."""

    id: str = Field(pattern=SHORT_ID, examples=["0123456789abcdef"])
    user: str
    tenant: str = Field(description="Empty where there is none.")
    scopes: list[str]
    origin: str = Field(description="What showed who it is.", examples=["token 0123456789abcdef"])
    created_at: datetime
    expires_at: datetime
    seen_at: datetime = Field(description="When it was last used, to the minute.")
    ended_at: datetime | None

    @classmethod
    def of(cls, row: SessionRecord) -> Session:
        """Return what is told of a session."""
        return cls(
            id=row.id,
            user=row.subject,
            tenant=row.tenant,
            scopes=row.scopes.split(),
            origin=row.origin,
            created_at=datetime.fromisoformat(row.created_at),
            expires_at=datetime.fromisoformat(row.expires_at),
            seen_at=row.seen_at,
            ended_at=row.ended_at,
        )


def register(router: APIRouter) -> None:
    """Add the routes."""
    router.get("/sessions", tags=_TAGS, operation_id="listSessions")(list_sessions)
    path = "/sessions/{sessionId}/end"
    router.post(path, tags=_TAGS, operation_id="endSession", responses=answers(ABSENT))(end)


async def list_sessions(
    by: Writes,
    tenant: Annotated[Subject | None, Query(description="Only this one's.")] = None,
    limit: Limit = LIMIT,
    cursor: Cursor = None,
) -> Page[Session]:
    """List sessions at the console, the newest first, those that have ended lately among them."""
    rows = await by.service.access.sessions.all(
        tenant=tenant_of(by, tenant), after=newest_after(cursor), limit=limit + 1
    )
    shown, behind = newest_of(rows, limit)
    return Page(items=[Session.of(row) for row in shown], next_cursor=behind)


async def end(by: Writes, session_id: SessionId) -> Session:
    """End a session: within five seconds every node asks that browser to sign in again. Its token stays good."""
    return Session.of(await by.service.access.sessions.end(session_id, tenant=by.tenant))
