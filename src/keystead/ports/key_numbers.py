"""Numbers of keyrings and data keys."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Protocol

from keystead.model import DataKeyState, KeyRecord


class KeyNumbers(Protocol):
    """Numbers of a whole store, each from an index."""

    async def count_keyrings(self) -> int:
        """Return how many keyrings there are."""

    async def count_states(self) -> Mapping[DataKeyState, int]:
        """Return how many data keys are in each state; absent states are not listed."""

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
