"""Sets of whole numbers that mostly follow one another, kept as ranges."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence


class Numbers:
    """Numbers as ranges: mostly one."""

    __slots__ = ("_ends", "_starts")

    def __init__(self) -> None:
        self._starts: list[int] = []
        self._ends: list[int] = []

    def __contains__(self, number: int) -> bool:
        """Whether a number is among them."""
        at = bisect_right(self._starts, number)
        return bool(at) and number < self._ends[at - 1]

    def add(self, number: int) -> bool:
        """Add a number; False where it was there."""
        ends = self._ends
        if ends and number == ends[-1]:
            ends[-1] += 1
            return True
        if number in self:
            return False
        self.add_range(number, number)
        return True

    def add_range(self, first: int, last: int) -> None:
        """Add all numbers from one to another, both included."""
        starts, ends = self._starts, self._ends
        # Those that touch it become one with it.
        low, high = bisect_left(ends, first), bisect_right(starts, last + 1)
        start = min(first, starts[low]) if low < high else first
        end = max(last + 1, ends[high - 1]) if low < high else last + 1
        starts[low:high], ends[low:high] = [start], [end]

    def drop_below(self, number: int) -> None:
        """Forget the numbers below one."""
        at = bisect_right(self._ends, number)
        del self._starts[:at], self._ends[:at]
        if self._starts and self._starts[0] < number:
            self._starts[0] = number

    def parted(self, ranges: Iterable[Sequence[int]]) -> tuple[list[list[int]], list[list[int]]]:
        """Return the parts of ranges, which rise, that are not among them, and the parts that are."""
        without: list[list[int]] = []
        within: list[list[int]] = []
        for first, last in ranges:
            at = first
            for start, end in self.ranges(last + 1)[bisect_right(self._ends, first) :]:
                if at < start:
                    without.append([at, start - 1])
                within.append([max(at, start), end])
                at = end + 1
            if at <= last:
                without.append([at, last])
        return without, within

    def ranges(self, below: int) -> list[list[int]]:
        """Return the numbers below one as pairs of the first and the last that follow one another."""
        pairs = zip(self._starts, self._ends, strict=True)
        return [[start, min(end, below) - 1] for start, end in pairs if start < below]

    def holes(self, below: int) -> Iterator[tuple[int, int]]:
        """Yield the numbers below one that are not among them, as first and last."""
        at = 0
        for first, last in [*self.ranges(below), [below, below]]:
            if at < first:
                yield at, first - 1
            at = last + 1
