"""The rule of two people over a session: whether an act may be done by whoever asks."""

from __future__ import annotations

import contextlib
import getpass
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from keystead.access.approvals import TOKENS_TOO, Approvals, Verdict, current_asker
from keystead.access.callers import Scope
from keystead.access.codes import Codes
from keystead.access.tokens import KEYRING
from keystead.errors import (
    ApprovalRequiredError,
    ForbiddenError,
    InvalidInputError,
    StoreReadOnlyError,
    StoreRestoredError,
)
from keystead.lifecycle.live_keyrings import LiveKeyrings
from keystead.lifecycle.surroundings import NoAudit, Surroundings
from keystead.manager.own_keyrings import own_ring
from keystead.model import Act, Action, KeyringPurpose, utc_text
from keystead.ports import ApprovalRecord, AuditEvent

log = logging.getLogger("keystead.manager")

RULE: Final = "two_person"


class TwoPeople:
    """Lets acts be done that somebody else has approved, where the store asks for that; ``keystead.ports.Consent``.

    Args:
        is_wanted: whether the manager was told to ask. Once it was, the store asks whoever opens it.
    """

    def __init__(self, live: LiveKeyrings, *, is_wanted: bool) -> None:
        self._live = live
        self._s = live.surroundings
        self._is_wanted = is_wanted
        self._was_remembered = False

    @property
    def is_wanted(self) -> bool:
        """Whether the manager was told to ask, and does so whatever the store says."""
        return self._is_wanted

    async def uphold(self) -> None:
        """Have the store remember the rule, where the manager was told of it: also after it has forgotten.

        A store that takes nothing new, since it cannot be written or was put back, is told another time.
        """
        if not self._is_wanted:
            return
        if await self._is_remembered():
            self._was_remembered = True
            return
        if self._was_remembered:
            self._was_remembered = False
            log.warning(
                "its database had no rule of two people any more, which the settings of this process ask for; it is "
                "written again: unless somebody has ended it just now, find out who writes the database"
            )
        with contextlib.suppress(StoreReadOnlyError, StoreRestoredError):
            async with self._s.store.transaction() as work:
                if await work.begin_rule(RULE, self._s.clock.now()):
                    await self._s.audit.record(work, AuditEvent("approval.begin"))
            self._was_remembered = True

    async def holds(self) -> bool:
        """Whether the rule holds."""
        return self._is_wanted or await self._is_remembered()

    async def _is_remembered(self) -> bool:
        async with self._s.store.reading() as work:
            return await work.has_rule(RULE)

    async def end(self) -> None:
        """End the rule, once somebody else has approved that.

        Raises:
            InvalidInputError: there is no such rule, or the settings would begin it again.
            ApprovalRequiredError, ForbiddenError: as ``given``.
        """
        if self._is_wanted:
            raise InvalidInputError("the settings say two_person: true; take that out first, wherever it stands")
        if not await self.holds():
            raise InvalidInputError("this store does not ask for two people; there is nothing to end")
        async with self.given(Act(Action.RULE_END, RULE)), self._s.store.transaction() as work:
            await self._s.audit.record(work, AuditEvent("approval.end"))
            await work.end_rule(RULE)

    async def approvals(self) -> Approvals:
        """Return the approvals of the store."""
        ring = await own_ring(self._live, KEYRING, KeyringPurpose.MAC, "HMAC-SHA256")
        s = self._s
        return Approvals(s.store, Codes(ring, self._live), audit=s.audit, clock=s.clock, random=s.random)

    @asynccontextmanager
    async def given(self, act: Act) -> AsyncIterator[None]:
        """Let the block do an act; see ``keystead.ports.Consent``."""
        if not await self.holds() or (act.action is Action.TOKEN_CREATE and not await self._has_approvers(act.tenant)):
            yield
            return
        async with approved(await self.approvals(), act):
            yield

    async def _has_approvers(self, tenant: str) -> bool:
        """Whether there is, or was, anybody to ask for tokens of a tenant, or of none, that approve."""
        async with self._s.store.reading() as work:
            return await work.has_rule(TOKENS_TOO) or await work.has_approvers(
                Scope.APPROVALS_WRITE.value, utc_text(self._s.clock.now()), tenant
            )


@asynccontextmanager
async def approved(approvals: Approvals, act: Act) -> AsyncIterator[None]:
    """Let the block do an act that was approved for whoever asks, and note that it was done; errors as ``Consent``."""
    asker = current_asker()
    if asker is None:
        raise ApprovalRequiredError(
            "this store asks for two people, and it is not known who asks for this: do it at the console, over REST, "
            "or at the command line with a token of your own in KEYSTEAD_TOKEN"
        )
    asker.require(act)
    row = await approvals.find(act, asker.user) or await approvals.ask(act, asker.user)
    if row.verdict == Verdict.REFUSED:
        raise ForbiddenError(
            f"{row.decided_by} has refused this (approval {row.id}); it can be asked for again after {_minute(row)}"
        )
    if row.verdict != Verdict.APPROVED:
        raise ApprovalRequiredError(
            f"this waits for somebody else's approval until {_minute(row)}: they run `keystead approval approve "
            f"{row.id}`, or open it at the console; then do exactly the same again",
            approval_id=row.id,
        )
    yield
    await approvals.finish(row)


def approvals_of_empty(s: Surroundings) -> Approvals:
    """Return the approvals of a store that has no keys yet, to which people are known by their accounts here."""
    return Approvals(s.store, None, audit=NoAudit(), clock=s.clock, random=s.random)


def account() -> str:
    """Return how a person is named of whom only the account on this machine is known."""
    return f"account {getpass.getuser()}"


def _minute(row: ApprovalRecord) -> str:
    """Return until when, as people read it."""
    return f"{row.expires_at[:16].replace('T', ' ')} UTC"
