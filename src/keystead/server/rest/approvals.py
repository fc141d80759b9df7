"""``/v1/approvals``: what waits for a second person. The words are those of ``keystead approval``."""

from __future__ import annotations

from datetime import datetime
from enum import Enum
from typing import Annotated, Final

from fastapi import APIRouter, Depends, Path
from pydantic import Field

from keystead.access.approvals import Standing, asker_of, details_of, standing_of
from keystead.access.callers import Scope
from keystead.model import Action
from keystead.ports import ApprovalRecord
from keystead.server.admin import Admin
from keystead.server.rest.answers import ABSENT, CONFLICT, answers
from keystead.server.rest.door import Needs
from keystead.server.rest.shapes import LIMIT, SHORT_ID, Cursor, Limit, Page, Told, newest_after, newest_of

_TAGS: Final[list[str | Enum]] = ["approvals"]
Approver = Annotated[Admin, Depends(Needs(Scope.APPROVALS_WRITE))]
ApprovalId = Annotated[
    str, Path(alias="approvalId", pattern=SHORT_ID, description="What was asked for.", examples=["0123456789abcdef"])
]


class Approval(Told):
    """What somebody asked for, and what was said to it."""

    id: str = Field(pattern=SHORT_ID, examples=["0123456789abcdef"])
    standing: Standing
    act: Action
    target: str = Field(description="What it is done to.", examples=["orders/3"])
    details: dict[str, str | int | bool | None] = Field(description="How it is done.")
    tenant: str = Field(description="Whose it is; empty where it is the store's.")
    asked_by: str
    asked_at: datetime
    expires_at: datetime = Field(description="Until when it can be approved, and done.")
    decided_by: str | None
    decided_at: datetime | None
    done_at: datetime | None

    @classmethod
    def of(cls, row: ApprovalRecord, now: datetime) -> Approval:
        """Return what is told of an approval."""
        return cls(
            id=row.id,
            standing=standing_of(row, now),
            act=Action(row.action),
            target=row.target,
            details=details_of(row),
            tenant=row.tenant,
            asked_by=row.asked_by,
            asked_at=datetime.fromisoformat(row.created_at),
            expires_at=datetime.fromisoformat(row.expires_at),
            decided_by=row.decided_by or None,
            decided_at=datetime.fromisoformat(row.decided_at) if row.decided_at else None,
            done_at=row.done_at,
        )


def register(router: APIRouter) -> None:
    """Add the routes."""
    router.get("/approvals", tags=_TAGS, operation_id="listApprovals")(list_approvals)
    router.get("/approvals/{approvalId}", tags=_TAGS, operation_id="showApproval", responses=answers(ABSENT))(show)
    deciding = answers(ABSENT, CONFLICT)
    router.post("/approvals/{approvalId}/approve", tags=_TAGS, operation_id="approve", responses=deciding)(approve)
    router.post("/approvals/{approvalId}/refuse", tags=_TAGS, operation_id="refuse", responses=deciding)(refuse)


async def list_approvals(by: Approver, limit: Limit = LIMIT, cursor: Cursor = None) -> Page[Approval]:
    """List what was asked for, the newest first, what is answered or over among it."""
    rows = await by.service.access.approvals.all(tenant=by.tenant, after=newest_after(cursor), limit=limit + 1)
    shown, behind = newest_of(rows, limit)
    return Page(items=[Approval.of(row, by.service.now()) for row in shown], next_cursor=behind)


async def show(by: Approver, approval_id: ApprovalId) -> Approval:
    """Tell exactly what somebody asks for, and what was said to it."""
    return Approval.of(await by.service.access.approvals.get(approval_id, tenant=by.tenant), by.service.now())


async def approve(by: Approver, approval_id: ApprovalId) -> Approval:
    """Say yes to what somebody else asks for. They do it by asking again for exactly the same, until it expires."""
    row = await by.service.access.approvals.approve(approval_id, asker_of(by.by))
    return Approval.of(row, by.service.now())


async def refuse(by: Approver, approval_id: ApprovalId) -> Approval:
    """Say no to what somebody asks for, or take back what was asked for oneself."""
    row = await by.service.access.approvals.refuse(approval_id, asker_of(by.by))
    return Approval.of(row, by.service.now())
