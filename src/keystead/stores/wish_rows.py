"""Wishes for re-encryptions, and the workers that wait for them, as rows."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import asdict, replace
from typing import Any, Final

from sqlalchemy import ColumnElement, and_, case, delete, func, or_, select, tuple_, update

from keystead.ports import Listeners, WishRecord, WishState
from keystead.stores.keys import KeyReadRows
from keystead.stores.records import as_record
from keystead.stores.tables import reencryption_listeners, reencryption_wishes

_rows: Final = reencryption_wishes
_ears: Final = reencryption_listeners
_OPEN: Final = WishState.OPEN.value
_TAKEN: Final = WishState.TAKEN.value
_UNFINISHED: Final = _rows.c.state.in_((_OPEN, _TAKEN))


class WishRows(KeyReadRows):
    """Wishes and listeners; ``keystead.ports.WishRows``."""

    async def add_wish(self, wish: WishRecord) -> WishRecord:
        """Add a wish and return it with its time; ``ConflictError`` when the field has one that has not ended."""
        added = replace(wish, asked_ms=await self.now_ms())
        values = {**asdict(added), "kind": added.kind.value, "state": added.state.value}
        await self._write(self._insert(_rows).values(values))
        return added

    async def find_wish(self, wish_id: str) -> WishRecord | None:
        """Return a wish by its id."""
        row = await self._first(select(_rows).where(_rows.c.id == wish_id))
        return None if row is None else as_record(WishRecord, _rows, row)

    async def unfinished_wish(self, field_id: str) -> WishRecord | None:
        """Return the wish of a field that has not ended; None where there is none."""
        row = await self._first(select(_rows).where(_rows.c.field_id == field_id, _UNFINISHED))
        return None if row is None else as_record(WishRecord, _rows, row)

    async def wishes(self, field_ids: Collection[str]) -> list[WishRecord]:
        """Return the wishes of fields, the newest first."""
        query = select(_rows).where(_rows.c.field_id.in_(list(field_ids)))
        found = await self._all(query.order_by(_rows.c.asked_ms.desc(), _rows.c.id.desc()))
        return [as_record(WishRecord, _rows, row) for row in found]

    async def take_wish(self, wish_id: str, worker: str, ttl_ms: int) -> WishRecord | None:
        """Take a wish that is open, or whose worker let its time run out; None where somebody else has it."""
        now = await self.now_ms()
        change = update(_rows).where(_rows.c.id == wish_id, _is_free(now))
        change = change.values(state=_TAKEN, worker=worker, until_ms=now + ttl_ms, taken_ms=now)
        row = await self._write(change.returning(_rows))
        return None if row is None else as_record(WishRecord, _rows, row)

    async def hold_wish(self, wish_id: str, worker: str, ttl_ms: int, job_id: str | None = None) -> bool:
        """Keep a wish that a worker took, and note its job; a ``ttl_ms`` of 0 lets others take it. False: lost."""
        values: dict[str, Any] = {"until_ms": await self.now_ms() + ttl_ms if ttl_ms else 0}
        values |= {} if job_id is None else {"job_id": job_id}
        return bool(await self._count(update(_rows).where(_is_of(wish_id, worker)).values(values)))

    async def end_wish(
        self,
        wish_id: str,
        worker: str,
        state: WishState,
        *,
        job_id: str | None = None,
        plan: str | None = None,
        error_code: str | None = None,
    ) -> bool:
        """Write what became of a wish that a worker took; False where it is not that worker's any more."""
        values: dict[str, Any] = {"state": state.value, "ended_ms": await self.now_ms(), "until_ms": 0}
        told = {"job_id": job_id, "plan": plan, "error_code": error_code}
        values |= {name: value for name, value in told.items() if value is not None}
        return bool(await self._count(update(_rows).where(_is_of(wish_id, worker)).values(values)))

    async def cancel_wish(self, wish_id: str) -> WishRecord | None:
        """End a wish that nobody works on; None where somebody does, or it has ended."""
        now = await self.now_ms()
        change = update(_rows).where(_rows.c.id == wish_id, _is_free(now))
        row = await self._write(change.values(state=WishState.CANCELLED.value, ended_ms=now).returning(_rows))
        return None if row is None else as_record(WishRecord, _rows, row)

    async def trim_wishes(self, field_id: str, kept: int) -> None:
        """Delete all wishes of a field but the newest."""
        of_field = select(_rows.c.id).where(_rows.c.field_id == field_id)
        newest = of_field.order_by(_rows.c.asked_ms.desc(), _rows.c.id.desc()).limit(kept)
        older = and_(_rows.c.field_id == field_id, _rows.c.id.not_in(newest), ~_UNFINISHED)
        await self._count(delete(_rows).where(older))

    async def remove_wishes(self, before_ms: int, limit: int) -> int:
        """Delete up to ``limit`` wishes that were asked for before a time and are held by nobody; return how many."""
        old = and_(_rows.c.asked_ms < before_ms, _rows.c.until_ms < await self.now_ms())
        first = select(_rows.c.id).where(old).order_by(_rows.c.asked_ms).limit(limit)
        return await self._count(delete(_rows).where(_rows.c.id.in_(first)))

    async def listen(self, field_id: str, worker: str, ttl_ms: int) -> None:
        """Note that a worker waits for wishes of a field; 0 says that it has stopped. A new one clears what is over."""
        now = await self.now_ms()
        known = update(_ears).where(_ears.c.field_id == field_id, _ears.c.worker == worker)
        if await self._count(known.values(seen_ms=now, until_ms=now + ttl_ms)) or not ttl_ms:
            return
        await self._count(delete(_ears).where(_ears.c.field_id == field_id, _ears.c.until_ms <= now))
        row = {"field_id": field_id, "worker": worker, "since_ms": now, "seen_ms": now, "until_ms": now + ttl_ms}
        await self._write(self._insert(_ears).values(row))

    async def listeners(self, field_ids: Collection[str]) -> dict[str, Listeners]:
        """Return who waits for wishes of fields, by their ids; of one nobody ever waited for, nothing."""
        is_there = _ears.c.until_ms > await self.now_ms()
        query = select(
            _ears.c.field_id,
            func.sum(case((is_there, 1), else_=0)).label("waiting"),
            func.min(case((is_there, _ears.c.since_ms))).label("since_ms"),
            func.max(_ears.c.seen_ms).label("seen_ms"),
        )
        query = query.where(_ears.c.field_id.in_(list(field_ids))).group_by(_ears.c.field_id)
        found = [as_record(Listeners, _ears, {**row, "waiting": int(row["waiting"])}) for row in await self._all(query)]
        return {each.field_id: each for each in found}

    async def remove_listeners(self, before_ms: int, limit: int) -> int:
        """Delete up to ``limit`` workers that stopped before a time; return how many."""
        key = tuple_(_ears.c.field_id, _ears.c.worker)
        first = select(_ears.c.field_id, _ears.c.worker).where(_ears.c.until_ms < before_ms)
        return await self._count(delete(_ears).where(key.in_(first.order_by(_ears.c.until_ms).limit(limit))))


def _is_free(now: int) -> ColumnElement[bool]:
    """Return whether a wish is anybody's to take."""
    return or_(_rows.c.state == _OPEN, and_(_rows.c.state == _TAKEN, _rows.c.until_ms <= now))


def _is_of(wish_id: str, worker: str) -> ColumnElement[bool]:
    return and_(_rows.c.id == wish_id, _rows.c.state == _TAKEN, _rows.c.worker == worker)
