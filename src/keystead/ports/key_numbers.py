"""Numbers of keyrings and data keys, and data keys in another order than that of their ids."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Protocol

from keystead.model import DataKeyState, KeyRecord


class KeyNumbers(Protocol):
    """Numbers of a whole store, and pages of keys, each from an index."""

    async def count_keyrings(self, *, at_most: int | None = None) -> int:
        """Return how many keyrings there are, counted up to ``at_most``."""

    async def count_states(self, *, at_most: int | None = None) -> Mapping[DataKeyState, int]:
        """Return how many data keys are in each state, counted up to ``at_most``; absent states are not listed."""

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

    async def due_keys(self, before: datetime, *, limit: int) -> list[KeyRecord]:
        """Return active keys whose ``rotate_after`` is not later, the longest due first."""

    async def leaving_keys(self, *, limit: int) -> list[KeyRecord]:
        """Return keys that are about to be destroyed, the soonest first."""

    async def next_rotation(self) -> datetime | None:
        """Return when the first active key is due to be replaced; None where none is by age."""

    async def wrap_keys(self) -> list[KeyRecord]:
        """Return the WRAP keys by id, destroyed ones left out: those that a KEK wraps."""

    async def rotation_counts(self, until: Sequence[datetime], *, limit: int) -> list[int]:
        """Return how many active keys are due up to each of one or more rising times, then later, then never by age.

        Of those that are due the first ``limit`` are counted, of the others as many.
        """

    async def used_keys(
        self, messages: float | None, size_bytes: float | None, *, among: int, limit: int
    ) -> list[KeyRecord]:
        """Return active keys that have seen so many messages or bytes, the soonest due first; None asks for neither.

        Only the first ``among`` active keys by that date are looked at.
        """
