"""Numbers of keyrings and data keys, and data keys in another order than that of their ids."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Select, case, func, literal_column, or_, select

from keystead.model import DataKeyState, KeyRecord, KeyringPurpose
from keystead.stores.keys import key_of
from keystead.stores.tables import data_keys, keyrings
from keystead.stores.transaction import Statements

_IS_ACTIVE: Final = data_keys.c.state == literal_column(f"'{DataKeyState.ACTIVE.value}'")
_IS_LEAVING: Final = data_keys.c.state == literal_column(f"'{DataKeyState.PENDING_DESTROY.value}'")
_DUE: Final = data_keys.c.rotate_after


class KeyNumberRows(Statements):
    """Counts keyrings and data keys; ``keystead.ports.KeyNumbers``."""

    async def count_keyrings(self, *, at_most: int | None = None) -> int:
        """Return how many keyrings there are, counted up to ``at_most``."""
        return await self._number_up_to(at_most, keyrings)

    async def count_states(self, *, at_most: int | None = None) -> Mapping[DataKeyState, int]:
        """Return how many data keys are in each state, counted up to ``at_most``; absent states are not listed."""
        if at_most is None:
            found = await self._tuples(select(data_keys.c.state, func.count()).group_by(data_keys.c.state))
            return {DataKeyState(state): int(number) for state, number in found}
        counts = {
            state: await self._number_up_to(at_most, data_keys, data_keys.c.state == state.value)
            for state in DataKeyState
        }
        return {state: number for state, number in counts.items() if number}

    async def versions(
        self,
        keyring: str,
        *,
        after: int = 0,
        states: Collection[DataKeyState] | None = None,
        newest_first: bool = False,
        limit: int,
    ) -> list[KeyRecord]:
        """Return a page of a keyring's data keys by version, those after one."""
        query = select(data_keys).where(data_keys.c.keyring == keyring, data_keys.c.version > after)
        if states is not None:
            query = query.where(data_keys.c.state.in_([state.value for state in states]))
        order = data_keys.c.version.desc() if newest_first else data_keys.c.version
        return [key_of(row) for row in await self._all(query.order_by(order).limit(limit))]

    async def due_keys(self, before: datetime, *, limit: int) -> list[KeyRecord]:
        """Return active keys whose ``rotate_after`` is not later, the longest due first."""
        query = select(data_keys).where(_IS_ACTIVE, before >= _DUE).order_by(_DUE).limit(limit)
        return [key_of(row) for row in await self._all(query)]

    async def leaving_keys(self, *, limit: int) -> list[KeyRecord]:
        """Return keys that are about to be destroyed, the soonest first."""
        query = select(data_keys).where(_IS_LEAVING).order_by(data_keys.c.destroy_after, data_keys.c.id).limit(limit)
        return [key_of(row) for row in await self._all(query)]

    async def next_rotation(self) -> datetime | None:
        """Return when the first active key is due to be replaced; None where none is by age."""
        first = select(_DUE).where(_IS_ACTIVE, _DUE.is_not(None)).order_by(_DUE).limit(1)
        found = await self._first(first)
        return None if found is None else found["rotate_after"]

    async def wrap_keys(self) -> list[KeyRecord]:
        """Return the WRAP keys by id, destroyed ones left out: those that a KEK wraps."""
        # No key wraps them, and every other one is wrapped by a key: that is an index.
        is_wrapped_by_none = data_keys.c.wrapped_by.is_(None)
        query = select(data_keys).where(is_wrapped_by_none, data_keys.c.purpose == KeyringPurpose.WRAP.value)
        query = query.where(data_keys.c.wrapped_key.is_not(None)).order_by(data_keys.c.id)
        return [key_of(row) for row in await self._all(query)]

    async def rotation_counts(self, until: Sequence[datetime], *, limit: int) -> list[int]:
        """Return how many active keys are due up to each of one or more rising times, then later, then never by age.

        Of those that are due the first ``limit`` are counted, of the others as many.
        """
        due = select(_DUE).where(_IS_ACTIVE, _DUE.is_not(None)).order_by(_DUE).limit(limit).subquery()
        place = case(*((due.c.rotate_after <= each, number) for number, each in enumerate(until)), else_=len(until))
        found = await self._tuples(select(place.label("place"), func.count()).group_by("place"))
        counts = {int(at): int(number) for at, number in found}
        never: Select[Any] = (
            select(literal_column("1")).select_from(data_keys).where(_IS_ACTIVE, _DUE.is_(None)).limit(limit)
        )
        [[number]] = await self._tuples(select(func.count()).select_from(never.subquery()))
        return [*(counts.get(at, 0) for at in range(len(until) + 1)), int(number)]

    async def used_keys(
        self, messages: float | None, size_bytes: float | None, *, among: int, limit: int
    ) -> list[KeyRecord]:
        """Return active keys that have seen so many messages or bytes, the soonest due first; None asks for neither.

        Only the first ``among`` active keys by that date are looked at.
        """
        limits = ((data_keys.c.messages, messages), (data_keys.c.bytes, size_bytes))
        reached = [column >= least for column, least in limits if least is not None]
        if not reached:
            return []
        first = select(data_keys.c.id).where(_IS_ACTIVE).order_by(_DUE).limit(among)
        query = select(data_keys).where(data_keys.c.id.in_(first), or_(*reached))
        return [key_of(row) for row in await self._all(query.order_by(_DUE, data_keys.c.id).limit(limit))]
