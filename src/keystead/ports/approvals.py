"""Approvals: what one principal asks for, and another one has to allow."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Protocol

from keystead.model import Act


@dataclass(frozen=True, slots=True)
class ApprovalRecord:
    """An act that somebody asked for, and what was said to it. Spec: docs/spec/approval-v1.md.

    Attributes:
        details: text of ``Act.details_text``.
        asked_by: the user who asks; who says yes is another one.
        verdict: ``approved``, ``refused``, or empty while nobody has said anything.
        key_id, code: the code is over all else but ``done_at``, under this data key of ``keystead.tokens``; 0 in a
            store that has none yet.
        done_at: when the act was done.
    """

    id: str
    action: str
    target: str
    details: str
    tenant: str
    asked_by: str
    created_at: str
    expires_at: str
    key_id: int
    code: bytes
    verdict: str = ""
    decided_by: str = ""
    decided_at: str = ""
    done_at: datetime | None = None

    def with_code(self, key_id: int, code: bytes) -> ApprovalRecord:
        """Return the record with its code."""
        return replace(self, key_id=key_id, code=code)


class ApprovalRows(Protocol):
    """Approvals, and the rule that asks for them."""

    async def add_approval(self, row: ApprovalRecord) -> None:
        """Insert an approval."""

    async def find_approval(self, approval_id: str) -> ApprovalRecord | None:
        """Return an approval by its id."""

    async def approvals_of(self, act: Act, asked_by: str, now: str) -> list[ApprovalRecord]:
        """Return what a user asked for that is this act, has not ended and was not done, the newest first."""

    async def approvals(
        self, *, tenant: str | None = None, after: tuple[str, str] | None = None, limit: int | None = None
    ) -> list[ApprovalRecord]:
        """Return the approvals of a tenant or of all, the newest first, those ``after`` a time of asking and an id."""

    async def count_waiting(self, now: str, *, tenant: str | None = None, limit: int) -> int:
        """Return how many wait for an answer, up to ``limit``."""

    async def decide_approval(self, row: ApprovalRecord) -> bool:
        """Write a verdict, its time, its author and the code over them; False if there is one, or no such row."""

    async def finish_approval(self, approval_id: str, at: datetime) -> None:
        """Note that the act was done."""

    async def remove_approvals(self, before: str, limit: int) -> int:
        """Delete up to ``limit`` approvals that ended before a time, and return how many."""

    async def has_approvers(self, scope: str, now: str, tenant: str) -> bool:
        """Whether two users of the tenant or of none have been given tokens of a scope that have not ended by time."""

    async def begin_rule(self, name: str, at: datetime) -> bool:
        """Write that a rule holds in the store; False where it did."""

    async def has_rule(self, name: str) -> bool:
        """Whether a rule holds in the store."""

    async def end_rule(self, name: str) -> None:
        """Write that it does not any more."""


class Consent(Protocol):
    """Whether something may be done by whoever asks for it."""

    def given(self, act: Act) -> AbstractAsyncContextManager[None]:
        """Let the block do an act.

        Raises:
            ApprovalRequiredError: somebody else has to approve it first; it has been asked for now, if it was not.
            ForbiddenError: somebody else has refused it.
        """


class Freely:
    """Consents to everything: no second person is asked."""

    def given(self, act: Act) -> AbstractAsyncContextManager[None]:
        """Let the block do it."""
        return nullcontext()
