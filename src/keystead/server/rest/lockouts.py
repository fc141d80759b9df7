"""``/v1/lockouts``: secrets of users that are locked now, in the caller's tenant."""

from __future__ import annotations

from datetime import UTC, datetime
from enum import Enum
from typing import Annotated, Final

from fastapi import APIRouter, Depends, Path
from pydantic import Field

from keystead.access.callers import Scope
from keystead.errors import InvalidInputError
from keystead.model import utc_text
from keystead.ports import CredentialRecord, SecretKind
from keystead.server.admin import Admin
from keystead.server.rest.answers import ABSENT, answers
from keystead.server.rest.devices import UserId
from keystead.server.rest.door import Needs
from keystead.server.rest.shapes import LIMIT, Cursor, Limit, Page, Told, page_of, place_of

_TAGS: Final[list[str | Enum]] = ["lockouts"]
Resets = Annotated[Admin, Depends(Needs(Scope.SECRETS_RESET))]
Kind = Annotated[SecretKind, Path(description="Which of the user's secrets.", examples=["passcode"])]


class Locked(Told):
    """A secret that is locked after wrong attempts, without anything of the secret."""

    user: str = Field(examples=["ada"])
    kind: SecretKind
    failures: int = Field(description="How many wrong attempts are not forgiven.")
    locked_until: datetime | None

    @classmethod
    def of(cls, row: CredentialRecord) -> Locked:
        """Return what is told of a locked secret."""
        return cls(user=row.user_id, kind=row.kind, failures=row.failures, locked_until=row.locked_until)


def register(router: APIRouter) -> None:
    """Add the routes."""
    router.get("/lockouts", tags=_TAGS, operation_id="listLockouts")(list_lockouts)
    path = "/lockouts/{kind}/{userId:name}/release"
    router.post(path, tags=_TAGS, operation_id="releaseLockout", responses=answers(ABSENT))(release)


async def list_lockouts(by: Resets, limit: Limit = LIMIT, cursor: Cursor = None) -> Page[Locked]:
    """List the secrets of the tenant that are locked now, those first whose lock is over first."""
    found = await by.service.devices.lockouts.all(by.by.principal, after=_place(cursor), limit=limit + 1)
    shown, behind = page_of(found, limit, _place_of)
    return Page(items=[Locked.of(each) for each in shown], next_cursor=behind)


async def release(by: Resets, kind: Kind, user_id: UserId) -> Locked:
    """End a lock and forgive what has failed; the answer is the lock as it was. The secret itself stays.

    Whoever guesses has as many attempts again: make sure first that it is the user who asks for it.
    """
    return Locked.of(await by.service.devices.lockouts.release(by.by.principal, user_id, kind))


def _place_of(row: CredentialRecord) -> tuple[str, ...]:
    return ("" if row.locked_until is None else utc_text(row.locked_until), row.user_id, row.kind.value)


def _place(cursor: str | None) -> tuple[datetime, str, str] | None:
    place = place_of(cursor, str, str, str)
    if place is None:
        return None
    try:
        return datetime.fromisoformat(place[0]).astimezone(UTC), place[1], place[2]
    except (ValueError, OverflowError):
        raise InvalidInputError("this is no cursor of this list; begin without one") from None
