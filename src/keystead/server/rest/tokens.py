"""``/v1/tokens``: who may call. The words are those of ``keystead token``."""

from __future__ import annotations

from datetime import datetime, timedelta
from enum import Enum
from typing import Annotated, Final

from fastapi import APIRouter, Depends, Path, Query, Response
from pydantic import BeforeValidator, Field

from keystead.access.callers import Scope, scopes_of
from keystead.access.tokens import LONGEST, MAX_LABEL
from keystead.ports import TokenRecord
from keystead.server.admin import Admin, tenant_of
from keystead.server.rest.answers import ABSENT, answers
from keystead.server.rest.door import Needs
from keystead.server.rest.scopes import Scopes
from keystead.server.rest.shapes import (
    LIMIT,
    SHORT_ID,
    Cursor,
    Given,
    Limit,
    Page,
    Subject,
    Told,
    newest_after,
    newest_of,
    whole,
)

_TAGS: Final[list[str | Enum]] = ["tokens"]
_LONGEST_S: Final = int(LONGEST.total_seconds())
Writes = Annotated[Admin, Depends(Needs(Scope.TOKENS_WRITE))]
TokenId = Annotated[
    str, Path(alias="tokenId", pattern=SHORT_ID, description="The token's id.", examples=["0123456789abcdef"])
]


class NewToken(Given):
    """A token to make."""

    user: Subject = Field(description="Whom the token is for: a user or a program.", examples=["billing-backend"])
    scopes: Scopes
    tenant: Subject | None = Field(
        default=None, description="The user's tenant, where there are tenants; a caller of a tenant names no other."
    )
    label: str = Field(
        default="",
        max_length=MAX_LABEL,
        pattern=r"^[\p{L}\p{M}\p{N}\p{P}\p{S} ]*$",
        description="What it is for, to tell it from others.",
        examples=["the back end"],
    )
    expires_in_seconds: Annotated[int, Field(ge=1, le=_LONGEST_S), BeforeValidator(whole)] | None = Field(
        default=None,
        description="How long it is good; else no end.",
        examples=[7_776_000],
    )


class Token(Told):
    """A token without its secret."""

    id: str = Field(pattern=SHORT_ID, examples=["0123456789abcdef"])
    user: str
    tenant: str = Field(description="Empty where there is none.")
    scopes: list[str]
    label: str
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None

    @classmethod
    def of(cls, row: TokenRecord) -> Token:
        """Return what is told of a token."""
        return cls(
            id=row.id,
            user=row.subject,
            tenant=row.tenant,
            scopes=row.scopes.split(" "),
            label=row.label,
            created_at=datetime.fromisoformat(row.created_at),
            expires_at=None if row.expires_at is None else datetime.fromisoformat(row.expires_at),
            revoked_at=row.revoked_at,
        )


class ShownToken(Token):
    """A token, as it is shown this once."""

    token: str = Field(description="It is sent as `Authorization: Bearer <token>`, and cannot be had again.")


def register(router: APIRouter) -> None:
    """Add the routes."""
    router.get("/tokens", tags=_TAGS, operation_id="listTokens")(list_tokens)
    router.post("/tokens", tags=_TAGS, operation_id="createToken", status_code=201)(create)
    router.get("/tokens/{tokenId}", tags=_TAGS, operation_id="showToken", responses=answers(ABSENT))(show)
    router.post("/tokens/{tokenId}/revoke", tags=_TAGS, operation_id="revokeToken", responses=answers(ABSENT))(revoke)


async def list_tokens(
    by: Writes,
    tenant: Annotated[Subject | None, Query(description="Only this one's.")] = None,
    limit: Limit = LIMIT,
    cursor: Cursor = None,
) -> Page[Token]:
    """List tokens, the newest first, those that were revoked or have ended among them; none is shown."""
    rows = await by.service.tokens.all(tenant=tenant_of(by, tenant), after=newest_after(cursor), limit=limit + 1)
    shown, behind = newest_of(rows, limit)
    return Page(items=[Token.of(row) for row in shown], next_cursor=behind)


async def create(by: Writes, given: NewToken, response: Response) -> ShownToken:
    """Make a token and show it, this once.

    Whoever holds `tokens:write` may give every scope, those included that it does not hold itself. A caller of a tenant
    makes tokens of that tenant alone, which administer nothing beyond it.
    """
    lifetime = None if given.expires_in_seconds is None else timedelta(seconds=given.expires_in_seconds)
    made = await by.service.tokens.create(
        given.user,
        scopes_of(given.scopes),
        tenant=tenant_of(by, given.tenant) or "",
        label=given.label,
        lifetime=lifetime,
    )
    response.headers["Location"] = f"/v1/tokens/{made.row.id}"
    return ShownToken(**Token.of(made.row).model_dump(), token="".join(made.text))


async def show(by: Writes, token_id: TokenId) -> Token:
    """Tell what a token is for; it is not shown."""
    return Token.of(await by.service.tokens.get(token_id, tenant=by.tenant))


async def revoke(by: Writes, token_id: TokenId) -> Token:
    """Have a token be refused, on every node within five seconds. Of one that was revoked the answer is the same."""
    return Token.of(await by.service.tokens.revoke(token_id, tenant=by.tenant))
