"""Approvals: where a store asks for two people, one asks for an act and another one says yes, within a day.

What is approved is done by whoever asked, by asking again for exactly the same. Spec: docs/spec/approval-v1.md.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, Final

from keystead.access.callers import Caller, Scope
from keystead.access.codes import Codes
from keystead.access.removal import remove_all
from keystead.access.token_text import ID_SIZE, approval_code
from keystead.config.durations import age_text
from keystead.errors import ConflictError, ForbiddenError, KeyNotFoundError, KeyStateError
from keystead.model import Act, Action, utc_text
from keystead.ports import ApprovalRecord, AuditEvent, AuditTrail, Clock, KeyStore, Random, UnitOfWork

TIME: Final = timedelta(hours=24)
"""How long somebody may be asked, and what was approved may be done."""
KEPT: Final = timedelta(days=90)
TOKENS_TOO: Final = "tokens_take_two"
"""The rule of a store that somebody has approved in: tokens are made freely no more, whoever is left."""
TAKES: Final = {
    Action.KEY_DESTROY: Scope.KEYRINGS_WRITE,
    Action.TRANSIT_DELETE: Scope.KEYRINGS_WRITE,
    Action.TRANSIT_TRIM: Scope.KEYRINGS_WRITE,
    Action.SUBJECT_FORGET: Scope.KEYRINGS_WRITE,
    Action.USER_FORGET: Scope.DEVICES_ADMIN,
    Action.ROLE_CREATE: Scope.TOKENS_WRITE,
    Action.ROLE_DELETE: Scope.TOKENS_WRITE,
    Action.SECRET_ID_CREATE: Scope.TOKENS_WRITE,
    Action.TOKEN_CREATE: Scope.TOKENS_WRITE,
    Action.RULE_END: Scope.APPROVALS_WRITE,
}
"""What whoever asks at the command line needs, whose commands take no scope otherwise."""


@dataclass(frozen=True, slots=True)
class Asker:
    """Who asks for something, or answers.

    Attributes:
        user: by the name that tokens have.
        tenant: whose acts these are; empty where they are the store's and every tenant's.
        scopes: what the user may do, where nothing has looked at that yet.
    """

    user: str
    tenant: str = ""
    scopes: frozenset[Scope] | None = None

    def require(self, act: Act) -> None:
        """Raise ``ForbiddenError`` where the user may not do the act at all."""
        if self.tenant not in ("", act.tenant):
            raise ForbiddenError("this is of another tenant, or of the whole store: use a token without a tenant")
        needed = TAKES.get(act.action)
        if needed is not None:
            self.require_scope(needed)

    def require_scope(self, needed: Scope) -> None:
        """Raise ``ForbiddenError`` where the user's token lacks a scope."""
        if self.scopes is not None and needed not in self.scopes:
            raise ForbiddenError(f"this takes a token with the scope {needed}")


_asker: ContextVar[Asker | None] = ContextVar("keystead_asker", default=None)


class Verdict(StrEnum):
    """What was said to an act that somebody asked for."""

    APPROVED = "approved"
    REFUSED = "refused"


class Standing(StrEnum):
    """How it is with an approval now."""

    WAITING = "waiting"
    APPROVED = "approved"
    REFUSED = "refused"
    DONE = "done"
    EXPIRED = "expired"


@contextmanager
def asked_by(asker: Asker) -> Iterator[None]:
    """Say who asks for what the block does."""
    token = _asker.set(asker)
    try:
        yield
    finally:
        _asker.reset(token)


def current_asker() -> Asker | None:
    """Return who asks; None where nobody has said."""
    return _asker.get()


def person_of(caller: Caller) -> str:
    """Return who stands behind a caller: a back end that acts for a user is itself."""
    return caller.principal.behind or caller.principal.user


def asker_of(caller: Caller, *, is_admitted: bool = False) -> Asker:
    """Return a caller as who asks or answers.

    Args:
        is_admitted: whether the way in has looked at what the caller may do, and it is not looked at again.
    """
    return Asker(person_of(caller), caller.principal.tenant, None if is_admitted else caller.scopes)


def standing_of(row: ApprovalRecord, now: datetime) -> Standing:
    """Return how it is with an approval."""
    if row.done_at is not None:
        return Standing.DONE
    if row.verdict == Verdict.REFUSED:
        return Standing.REFUSED
    if row.expires_at <= utc_text(now):
        return Standing.EXPIRED
    return Standing.APPROVED if row.verdict == Verdict.APPROVED else Standing.WAITING


def details_of(row: ApprovalRecord) -> dict[str, Any]:
    """Return how the act is done, by names."""
    given: dict[str, Any] = json.loads(row.details)
    return given


def words_of(row: ApprovalRecord) -> list[tuple[str, str]]:
    """Return how the act is done, as people read it."""
    return [_WORDS[name](value) for name, value in details_of(row).items()]


_WORDS: Final[Mapping[str, Callable[[Any], tuple[str, str]]]] = {
    "wait_s": lambda given: ("waits", age_text(given)),
    "without_sources": lambda given: ("data", "not looked for" if given else "looked for in every declared source"),
    "min_available": lambda given: ("oldest version that stays", str(given)),
    "kind": lambda given: ("kind", given),
    "role": lambda given: ("id of the role", given),
    "scopes": lambda given: ("scopes", given),
    "rules": lambda given: ("rules", given),
    "label": lambda given: ("label", given or "-"),
    "lifetime_s": lambda given: ("good for", "no end" if given is None else age_text(given)),
    "exported_at": lambda given: ("exported at", given),
    "sha256": lambda given: ("SHA-256 of the export", given),
}


class Approvals:
    """The approvals of a store.

    Args:
        codes: of ``keystead.tokens``; None in a store that has no keys yet, which proves nothing of its rows.
    """

    def __init__(
        self, store: KeyStore, codes: Codes | None, *, audit: AuditTrail, clock: Clock, random: Random
    ) -> None:
        self._store = store
        self._codes = codes
        self._audit = audit
        self._clock = clock
        self._random = random

    async def ask(self, act: Act, user: str) -> ApprovalRecord:
        """Ask for an act."""
        now = self._clock.now()
        row = ApprovalRecord(
            id=self._random(ID_SIZE).hex(),
            action=act.action.value,
            target=act.target,
            details=act.details_text(),
            tenant=act.tenant,
            asked_by=user,
            created_at=utc_text(now),
            expires_at=utc_text(now + TIME),
            key_id=0,
            code=b"",
        )
        row = self._sealed(row)
        async with self._store.transaction() as work:
            await self._record(work, "approval.ask", row)
            await work.add_approval(row)
        return row

    async def find(self, act: Act, user: str) -> ApprovalRecord | None:
        """Return what a user asked for that is this act and has not ended: approved before refused before waiting."""
        async with self._store.reading() as work:
            found = await work.approvals_of(act, user, utc_text(self._clock.now()))
        good = [row for row in found if await self._is_good(row)]
        for verdict in (Verdict.APPROVED, Verdict.REFUSED, ""):
            for row in good:
                if row.verdict == verdict:
                    return row
        return None

    async def finish(self, row: ApprovalRecord) -> None:
        """Note that an act was done: it is approved no more."""
        async with self._store.transaction() as work:
            await self._record(work, "approval.use", row)
            await work.finish_approval(row.id, self._clock.now())

    async def all(
        self, *, tenant: str | None = None, after: tuple[str, str] | None = None, limit: int | None = None
    ) -> list[ApprovalRecord]:
        """Return the approvals, newest first; ``after`` as ``Tokens.all``."""
        async with self._store.reading() as work:
            return await work.approvals(tenant=tenant, after=after, limit=limit)

    async def get(self, approval_id: str, *, tenant: str | None = None) -> ApprovalRecord:
        """Return an approval.

        Raises:
            KeyNotFoundError: there is none of this id, of the tenant where one is named.
        """
        async with self._store.reading() as work:
            row = await work.find_approval(approval_id)
        if row is None or tenant not in (None, row.tenant):
            raise KeyNotFoundError("nobody has asked for anything under this id; `keystead approval list` shows what")
        return row

    async def approve(self, approval_id: str, by: Asker) -> ApprovalRecord:
        """Say yes to what somebody else asks for.

        Raises:
            ForbiddenError: who asks is who approves, lacks the scope, or the row is not as it was written.
            KeyNotFoundError: there is none of this id, or it is not of the tenant of whoever approves.
            KeyStateError: somebody has answered, or a day is over.
        """
        by.require_scope(Scope.APPROVALS_WRITE)
        row = await self.get(approval_id, tenant=by.tenant or None)
        if _same(row.asked_by, by.user):
            raise ForbiddenError("whoever asks does not approve it: it takes somebody else, with a token of their own")
        return await self._decide(row, Verdict.APPROVED, by.user)

    async def refuse(self, approval_id: str, by: Asker) -> ApprovalRecord:
        """Say no to what somebody asks for; who asks takes it back so, without a scope. Errors as ``approve``."""
        row = await self.get(approval_id, tenant=by.tenant or None)
        if row.asked_by != by.user:
            by.require_scope(Scope.APPROVALS_WRITE)
        return await self._decide(row, Verdict.REFUSED, by.user)

    async def upkeep(self) -> int:
        """Remove approvals that ended 90 days ago, of which the audit trail has what was said: return how many."""
        before = utc_text(self._clock.now() - KEPT)
        return await remove_all(self._store, lambda work, most: work.remove_approvals(before, most))

    async def _decide(self, row: ApprovalRecord, verdict: Verdict, by: str) -> ApprovalRecord:
        now = self._clock.now()
        standing = standing_of(row, now)
        if standing is not Standing.WAITING:
            raise KeyStateError(f"nothing waits here any more: what was asked for is {standing.value}")
        if not await self._is_good(row):
            raise ForbiddenError("this is not as it was asked for: somebody has changed its row; ask again")
        said = self._sealed(replace(row, verdict=verdict.value, decided_by=by, decided_at=utc_text(now)))
        async with self._store.transaction() as work:
            if not await work.decide_approval(said):
                raise ConflictError("somebody else has just answered; look again")
            if verdict is Verdict.APPROVED and self._codes is not None:
                await work.begin_rule(TOKENS_TOO, now)
            await self._record(work, "approval.approve" if verdict is Verdict.APPROVED else "approval.refuse", said)
        return said

    def _sealed(self, row: ApprovalRecord) -> ApprovalRecord:
        key_id, key = (0, b"") if self._codes is None else self._codes.active()
        return row.with_code(key_id, approval_code(key, row))

    async def _is_good(self, row: ApprovalRecord) -> bool:
        if self._codes is None:
            return row.key_id == 0 and row.code == approval_code(b"", row)
        return row.key_id != 0 and await self._codes.fit(row, lambda key: approval_code(key, row))

    async def _record(self, work: UnitOfWork, action: str, row: ApprovalRecord) -> None:
        details = {"approval": row.id, "act": row.action, "target": row.target, "asked_by": row.asked_by}
        if row.tenant:
            details["tenant"] = row.tenant
        if row.decided_by:
            details["decided_by"] = row.decided_by
        await self._audit.record(work, AuditEvent(action, details=details))


def _same(one: str, other: str) -> bool:
    return one.strip().casefold() == other.strip().casefold()
