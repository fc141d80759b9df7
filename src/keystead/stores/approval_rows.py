"""Approvals, and rules of the store, as rows."""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime
from typing import Any, Final

from sqlalchemy import ColumnElement, and_, delete, literal, or_, select, update

from keystead.model import Act
from keystead.ports import ApprovalRecord
from keystead.stores.records import as_record
from keystead.stores.tables import api_tokens, approvals, store_rules
from keystead.stores.token_rows import newest_first
from keystead.stores.transaction import Statements

_rows: Final = approvals


class ApprovalRows(Statements):
    """Approvals; ``keystead.ports.ApprovalRows``."""

    async def add_approval(self, row: ApprovalRecord) -> None:
        """Insert an approval."""
        await self._write(self._insert(_rows).values(asdict(row)))

    async def find_approval(self, approval_id: str) -> ApprovalRecord | None:
        """Return an approval by its id."""
        found = await self._all(select(_rows).where(_rows.c.id == approval_id))
        return as_record(ApprovalRecord, _rows, found[0]) if found else None

    async def approvals_of(self, act: Act, asked_by: str, now: str) -> list[ApprovalRecord]:
        """Return what a user asked for that is this act, has not ended and was not done, the newest first."""
        same = and_(
            _rows.c.action == act.action.value,
            _rows.c.target == act.target,
            _rows.c.details == act.details_text(),
            _rows.c.tenant == act.tenant,
            _rows.c.asked_by == asked_by,
        )
        is_open = and_(_rows.c.expires_at > now, _rows.c.done_at.is_(None))
        query = select(_rows).where(is_open, same).order_by(_rows.c.created_at.desc(), _rows.c.id)
        return [as_record(ApprovalRecord, _rows, row) for row in await self._all(query)]

    async def approvals(
        self, *, tenant: str | None = None, after: tuple[str, str] | None = None, limit: int | None = None
    ) -> list[ApprovalRecord]:
        """Return the approvals of a tenant or of all, the newest first; those ``after`` a time of asking and an id."""
        query = newest_first(_rows, after, limit)
        if tenant is not None:
            query = query.where(_rows.c.tenant == tenant)
        return [as_record(ApprovalRecord, _rows, row) for row in await self._all(query)]

    async def count_waiting(self, now: str, *, tenant: str | None = None, limit: int) -> int:
        """Return how many wait for an answer, up to ``limit``."""
        waiting: list[ColumnElement[bool]] = [_rows.c.expires_at > now, _rows.c.verdict == ""]
        if tenant is not None:
            waiting.append(_rows.c.tenant == tenant)
        return len(await self._all(select(_rows.c.id).where(*waiting).limit(limit)))

    async def decide_approval(self, row: ApprovalRecord) -> bool:
        """Write a verdict, its time, its author and the code over them; False if there is one, or no such row."""
        said: dict[str, Any] = {
            name: getattr(row, name) for name in ("verdict", "decided_by", "decided_at", "key_id", "code")
        }
        change = update(_rows).where(_rows.c.id == row.id, _rows.c.verdict == "")
        return await self._count(change.values(said)) == 1

    async def finish_approval(self, approval_id: str, at: datetime) -> None:
        """Note that the act was done."""
        await self._count(update(_rows).where(_rows.c.id == approval_id).values(done_at=at))

    async def remove_approvals(self, before: str, limit: int) -> int:
        """Delete up to ``limit`` approvals that ended before a time, and return how many."""
        first = select(_rows.c.id).where(_rows.c.expires_at < before).order_by(_rows.c.expires_at).limit(limit)
        return await self._count(delete(_rows).where(_rows.c.id.in_(first)))

    async def has_approvers(self, scope: str, now: str, tenant: str) -> bool:
        """Whether two users of the tenant or of none have been given tokens of a scope that have not ended by time."""
        tokens = api_tokens
        users = select(tokens.c.subject).where(
            tokens.c.role_id.is_(None),
            tokens.c.tenant.in_(("", tenant)),
            or_(tokens.c.expires_at.is_(None), tokens.c.expires_at > now),
            (literal(" ") + tokens.c.scopes + literal(" ")).contains(f" {scope} ", autoescape=True),
        )
        return len(await self._all(users.distinct().limit(2))) == 2

    async def begin_rule(self, name: str, at: datetime) -> bool:
        """Write that a rule holds in the store; False where it did."""
        begun = self._insert(store_rules).values(name=name, since=at).on_conflict_do_nothing(index_elements=["name"])
        return await self._write(begun.returning(store_rules.c.name)) is not None

    async def has_rule(self, name: str) -> bool:
        """Whether a rule holds in the store."""
        return bool(await self._all(select(store_rules.c.name).where(store_rules.c.name == name)))

    async def end_rule(self, name: str) -> None:
        """Write that it does not any more."""
        await self._count(delete(store_rules).where(store_rules.c.name == name))
