"""Wishes: who does not reach an application's table asks for a plan or a re-encryption, and a worker there does it.

Decision: docs/adr/0056-a-re-encryption-is-asked-for.md.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from keystead.errors import ConflictError, InvalidInputError, KeyNotFoundError
from keystead.fields.commands import beginning_of, command_of
from keystead.fields.plan_text import KeptPlan, parse_plan
from keystead.fields.surroundings import Manager
from keystead.model import utc_of
from keystead.ports import AuditEvent, FieldRecord, Listeners, WishKind, WishRecord, WishState

KEPT: Final = 10
"""How many wishes of a field are kept, the newest ones."""
LONGEST_NAME: Final = 255
UNFINISHED: Final = frozenset({WishState.OPEN, WishState.TAKEN})


@dataclass(frozen=True, slots=True)
class Planned:
    """A plan that a worker has made, and when."""

    kept: KeptPlan
    at: datetime


@dataclass(frozen=True, slots=True)
class FieldStanding:
    """A registered field, who waits for wishes of it, and what was asked for last, the newest first.

    Attributes:
        command: what begins a re-encryption, or waits for wishes with ``--wait``; None where no command says it.
        is_whole: whether the command says all of the declaration, as the last re-encryption had it.
        now_ms: when this was looked at, by the store's clock.
    """

    field: FieldRecord
    listeners: Listeners | None
    wishes: Sequence[WishRecord]
    command: str | None
    is_whole: bool
    now_ms: int

    @property
    def is_listened_to(self) -> bool:
        """Whether a worker waits for wishes."""
        return self.listeners is not None and self.listeners.waiting > 0

    @property
    def unfinished(self) -> WishRecord | None:
        """The wish that has not ended; None where there is none."""
        return next((each for each in self.wishes if each.state in UNFINISHED), None)

    @property
    def is_held(self) -> bool:
        """Whether a worker is at what was asked for, and has told so lately."""
        found = self.unfinished
        return found is not None and found.state is WishState.TAKEN and found.until_ms > self.now_ms

    @property
    def last(self) -> WishRecord | None:
        """The last wish, ended or not."""
        return self.wishes[0] if self.wishes else None

    @property
    def planned(self) -> Planned | None:
        """The last plan that a worker has made; None where none was, or not lately."""
        for each in self.wishes:
            if each.kind is WishKind.PLAN and each.state is WishState.DONE:
                kept = parse_plan(each.plan)
                return None if kept is None else Planned(kept, utc_of(each.ended_ms or each.asked_ms))
        return None


async def wish(km: Manager, field_id: str, kind: WishKind | str, *, asked_by: str = "") -> WishRecord:
    """Ask for a plan or a re-encryption of a registered field, of whichever worker waits for it.

    It waits until a worker takes it, ``serve_wishes`` or ``keystead reencrypt --wait``, or it is cancelled.

    Args:
        field_id: as ``km.fields`` lists it, of one place.
        kind: ``plan`` or ``run``.
        asked_by: the user who asks, to be told to whoever looks.

    Raises:
        KeyNotFoundError: no such field is registered.
        ConflictError: something was asked for this field already, and has not ended.
        InvalidInputError: another kind.
    """
    try:
        kind = WishKind(kind)
    except ValueError:
        raise InvalidInputError("what is asked for is a plan, or a run") from None
    s = (await km.session()).surroundings
    async with s.store.transaction() as work:
        if await work.find_field(field_id) is None:
            raise absent(field_id)
        found = await work.unfinished_wish(field_id)
        if found is not None:
            raise ConflictError(
                f"a {_NAMES[found.kind]} of {field_id} was asked for already ({found.id}); wait for it, or cancel it"
            )
        asked = WishRecord(secrets.token_hex(8), field_id, kind, asked_by[:LONGEST_NAME])
        await s.audit.record(work, event_of("reencrypt.wish", asked))
        added = await work.add_wish(asked)
        await work.trim_wishes(field_id, KEPT)
        return added


async def wishes(km: Manager, field_id: str) -> list[WishRecord]:
    """Return what was asked for of a field lately, the newest first."""
    async with (await km.session()).surroundings.store.reading() as work:
        return await work.wishes([field_id])


async def cancel_wish(km: Manager, wish_id: str) -> WishRecord:
    """Take back what was asked for, while no worker is at it.

    Raises:
        KeyNotFoundError: no such wish.
        ConflictError: a worker is at it, or it has ended.
    """
    s = (await km.session()).surroundings
    async with s.store.transaction() as work:
        found = await work.find_wish(wish_id)
        if found is None:
            raise KeyNotFoundError(f"nothing that was asked for has the id {wish_id!r}")
        cancelled = await work.cancel_wish(wish_id)
        if cancelled is None and found.state is WishState.TAKEN:
            raise ConflictError("a worker is at it; pause or cancel the re-encryption, or wait for the plan")
        if cancelled is None:
            raise ConflictError(f"it is {found.state} already")
        await s.audit.record(work, event_of("reencrypt.cancel_wish", found))
        return cancelled


async def fields_after(km: Manager, after: str = "", *, limit: int, only: str | None = None) -> list[FieldStanding]:
    """Return registered fields by id, with who waits for wishes of them, and what was asked for lately.

    Args:
        after: the id of the last one seen.
        limit: how many at most.
        only: the one field that is looked for.
    """
    async with (await km.session()).surroundings.store.reading() as work:
        if only is None:
            registered = await work.fields(after=after, limit=limit)
        else:
            field = await work.find_field(only)
            registered = [] if field is None or field.id <= after else [field]
        ids = [each.id for each in registered]
        now, listeners, asked = await work.now_ms(), await work.listeners(ids), await work.wishes(ids)
        last = {each: await work.newest_reencryptions(each, limit=1) for each in ids}
    found = []
    for field in registered:
        job = last[field.id][0] if last[field.id] else None
        known = None if job is None or job.locator != field.locator or job.dry_run else command_of(job)
        of_field = [each for each in asked if each.field_id == field.id]
        command = beginning_of(field) if known is None else known
        found.append(FieldStanding(field, listeners.get(field.id), of_field, command, known is not None, now))
    return found


async def field_standing(km: Manager, field_id: str) -> FieldStanding:
    """Return a registered field as ``fields_after`` does.

    Raises:
        KeyNotFoundError: no such field is registered.
    """
    found = await fields_after(km, limit=1, only=field_id)
    if not found:
        raise absent(field_id)
    return found[0]


def absent(field_id: str) -> KeyNotFoundError:
    """Return the error for a field that is not registered."""
    return KeyNotFoundError(f"no field {field_id!r} is registered; `keystead field list` shows them")


def event_of(action: str, asked: WishRecord) -> AuditEvent:
    """Return what an audit trail is told of a wish."""
    details = {"wish": asked.id, "field": asked.field_id, "kind": asked.kind.value, "asked_by": asked.asked_by}
    return AuditEvent(action, details=details)


_NAMES: Final = {WishKind.PLAN: "plan", WishKind.RUN: "re-encryption"}
