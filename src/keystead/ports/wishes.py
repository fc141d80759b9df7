"""Wishes: re-encryptions that somebody asks for, of workers that wait where the application's table is."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol


class WishKind(StrEnum):
    """What is asked for: to look what is before a re-encryption, or to do it."""

    PLAN = "plan"
    RUN = "run"


class WishState(StrEnum):
    """Where a wish stands."""

    OPEN = "open"
    TAKEN = "taken"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"


@dataclass(frozen=True, slots=True)
class WishRecord:
    """A plan or a re-encryption of a registered field that somebody asked for, and what became of it.

    Attributes:
        asked_by: the user who asked; empty where nobody has said.
        worker: who took it. Until ``until_ms`` it is that worker's alone; afterwards another one may take it.
        job_id: of a re-encryption, once its worker has begun it or gone on with it.
        plan: of a plan, what was found: JSON that ``keystead.fields.wishes`` writes and reads.
        error_code: why it failed; never a text, which might tell of values.
    """

    id: str
    field_id: str
    kind: WishKind
    asked_by: str
    state: WishState = WishState.OPEN
    asked_ms: int = 0
    worker: str | None = None
    until_ms: int = 0
    taken_ms: int | None = None
    ended_ms: int | None = None
    job_id: str | None = None
    plan: str | None = None
    error_code: str | None = None


@dataclass(frozen=True, slots=True)
class Listeners:
    """The workers of a field that wait for wishes.

    Attributes:
        waiting: how many wait now.
        since_ms: since when the first of those that wait does; None where none waits.
        seen_ms: when one told last that it waits.
    """

    field_id: str
    waiting: int
    since_ms: int | None
    seen_ms: int


class WishRows(Protocol):
    """Wishes, and who waits for them."""

    async def add_wish(self, wish: WishRecord) -> WishRecord:
        """Add a wish and return it with its time; ``ConflictError`` when the field has one that has not ended."""

    async def find_wish(self, wish_id: str) -> WishRecord | None:
        """Return a wish by its id."""

    async def unfinished_wish(self, field_id: str) -> WishRecord | None:
        """Return the wish of a field that has not ended; None where there is none."""

    async def wishes(self, field_ids: Collection[str]) -> list[WishRecord]:
        """Return the wishes of fields, the newest first."""

    async def take_wish(self, wish_id: str, worker: str, ttl_ms: int) -> WishRecord | None:
        """Take a wish that is open, or whose worker let its time run out; None where somebody else has it."""

    async def hold_wish(self, wish_id: str, worker: str, ttl_ms: int, job_id: str | None = None) -> bool:
        """Keep a wish that a worker took, and note its job; a ``ttl_ms`` of 0 lets others take it. False: lost."""

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

    async def cancel_wish(self, wish_id: str) -> WishRecord | None:
        """End a wish that nobody works on; None where somebody does, or it has ended."""

    async def trim_wishes(self, field_id: str, kept: int) -> None:
        """Delete all wishes of a field but the newest."""

    async def remove_wishes(self, before_ms: int, limit: int) -> int:
        """Delete up to ``limit`` wishes that were asked for before a time and are held by nobody; return how many."""

    async def listen(self, field_id: str, worker: str, ttl_ms: int) -> None:
        """Note that a worker waits for wishes of a field; 0 says that it has stopped. A new one clears what is over."""

    async def listeners(self, field_ids: Collection[str]) -> dict[str, Listeners]:
        """Return who waits for wishes of fields, by their ids; of one nobody ever waited for, nothing."""

    async def remove_listeners(self, before_ms: int, limit: int) -> int:
        """Delete up to ``limit`` workers that stopped before a time; return how many."""
