"""A time as few rows of numbers: fine ones until a coarser one begins, and so on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

MINUTE: Final = 60
HOUR: Final = 3600
HALF_DAY: Final = 12 * HOUR

OF_OPERATIONS: Final = (MINUTE, HOUR, HALF_DAY)
"""How long the rows are for, in seconds; each is a multiple of the one before."""
OF_KEYS: Final = (HOUR, 3 * HOUR, HALF_DAY)
"""Those of keys and devices."""


@dataclass(frozen=True, slots=True)
class Span:
    """Rows of one length, from ``start`` to before ``end``, in seconds since 1970."""

    seconds: int
    start: int
    end: int

    @property
    def starts(self) -> range:
        """Where each of them begins."""
        return range(self.start, self.end, self.seconds)


def spans(since: datetime, until: datetime, lengths: Sequence[int]) -> list[Span]:
    """Return the rows that begin with ``since``, a multiple of the shortest, and have ``until`` in the last one."""
    at, end = start_of(since, lengths[0]), int(until.timestamp()) + 1
    found = []
    for seconds, longer in zip(lengths, (*lengths[1:], None), strict=True):
        stop = _up(end, seconds) if longer is None else min(_up(at, longer), _up(end, seconds))
        if at < min(stop, end):
            found.append(Span(seconds, at, stop))
            at = stop
    return found


def start_of(moment: datetime, seconds: int) -> int:
    """Return where the row begins that has a moment in it."""
    return int(moment.timestamp()) // seconds * seconds


def _up(at: int, seconds: int) -> int:
    return -(-at // seconds) * seconds
