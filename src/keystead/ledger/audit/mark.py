"""Whether a store keeps a trail: what says so besides the store's own mark, which nobody authenticates.

Spec: docs/spec/audit-v1.md, 3.8; decisions: docs/adr/0032-the-mark-of-an-audited-store.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final

from keystead.ledger.audit.chain import BEGIN, END, FOUND, TrailState
from keystead.ledger.audit.examining import Listing, SessionKeys, examine
from keystead.ledger.audit.keys import StateKeys
from keystead.ledger.audit.looking import all_waiting
from keystead.ledger.audit.standing import size_beside, vouched_state
from keystead.ports import AuditEntryRow, KeyStore, UnitOfWork

_TELLING: Final = tuple(f'"action":"{action}"'.encode() for action in (BEGIN, END, FOUND))


@dataclass(frozen=True, slots=True)
class Mark:
    """What a store says of its trail at one moment.

    Attributes:
        epoch: the store's.
        is_set: whether the store is marked; whoever writes the database may have changed that.
        has_log: whether there is a state, or a record.
        state: the state, if it is authentic and not behind the records, with what authentic entries say that wait.
    """

    epoch: int
    is_set: bool
    has_log: bool
    state: TrailState | None = None

    @property
    def over(self) -> int | None:
        """The epoch at which the trail was ended, as somebody said who holds a key; None where nobody did."""
        return None if self.state is None else self.state.over

    @property
    def is_blank(self) -> bool:
        """Whether no trail has begun on this state, as an import leaves it."""
        return self.state is not None and not self.state.since

    def is_over(self, known: int) -> bool:
        """Whether the trail was ended after an epoch at which it is known to have been kept."""
        return self.over is not None and self.over > known


@dataclass(frozen=True, slots=True)
class MarkReader:
    """Reads what a store says of its trail.

    Attributes:
        keys: what vouches for the state.
        sessions: opens those that entries are of.
    """

    store: KeyStore
    store_id: str
    keys: StateKeys
    sessions: SessionKeys

    async def read(self) -> Mark:
        """Return what the store says now.

        Raises:
            KMSError: the store cannot be read.
        """
        async with self.store.reading() as work:
            store, row = await work.state(), await work.audit_state()
            state = vouched_state(row, self.keys, self.store_id)
            size = await size_beside(work, state)
            has_log = row is not None or size > 0
            if state is not None and state.size < size:
                state = None  # one of before: what it says of the trail's end is over
            if state is None or (store.audited and state.is_on):
                # What waits then makes no difference: an entry that ends a trail comes with the mark taken away.
                return Mark(store.epoch, store.audited, has_log, state)
            waiting = await turning(work)
            sessions = await work.audit_sessions({each.session for each in waiting})
            listed = await work.listed_entries([each.id for each in waiting])
        # A session that cannot be opened now tells nothing: the trail then counts as kept.
        known = await self.sessions.known({each.session for each in waiting}, sessions)
        listing = Listing(waiting, listed, size=state.size)
        for each in examine([each for each in waiting if each.session in known], known, listing):
            if each.entry is not None:
                state = state.after(each.entry.members)
        return Mark(store.epoch, store.audited, has_log, state)


class Turns:
    """The beginnings and ends of a trail, as its entries tell of them in whatever order."""

    def __init__(self) -> None:
        self._seen: list[tuple[int, str, int]] = []

    def take(self, members: Mapping[str, Any], number: int) -> None:
        """Take the entry in a record."""
        epoch, action = members.get("epoch"), members["action"]
        if action in (BEGIN, END) and isinstance(epoch, int):
            self._seen.append((epoch, action, number))

    def unended(self) -> list[int]:
        """Return the records that say that the trail begins where it had begun, and had not ended."""
        turns = sorted(self._seen)
        return [later[2] for former, later in pairwise(turns) if former[1] == later[1] == BEGIN]


async def turning(work: UnitOfWork) -> list[AuditEntryRow]:
    """Return the entries that wait and may say that the trail begins, or ends; none is known to be authentic."""
    return [row async for row in all_waiting(work) if any(each in row.entry for each in _TELLING)]
