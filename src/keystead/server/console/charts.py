"""Numbers as columns of a picture: what was done by the hour, how long it took, and when keys are due."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, Final

from keystead.ports import HourCount
from keystead.server.console.rendering import count, moment

WIDTH: Final = 360
HEIGHT: Final = 170
DUE_DAYS: Final = (0, 1, 7, 30, 90)
"""Up to when keys are due, in days from now, by which they are told apart."""
_LEFT: Final = 44
_TOP: Final = 12
_BOTTOM: Final = 146
_GAP: Final = 0.25
"""How much of the place of a column stays empty."""
_HALF_LETTER: Final = 3.5
"""Half of what a letter below a column takes in width."""
_HOURS_BETWEEN_LABELS: Final = 6
_LEAST: Final = 1.5
"""How high the smallest number is."""
_DUE: Final = (
    ("overdue", "overdue"),
    ("1 d", "within a day"),
    ("7 d", "within 7 days"),
    ("30 d", "within 30 days"),
    ("90 d", "within 90 days"),
    ("later", "later"),
    ("never", "never by age"),
)
_PERCENTS: Final = (
    ("p50", "half of them took at most"),
    ("p95", "95 of 100 took at most"),
    ("p99", "99 of 100 took at most"),
)


@dataclass(frozen=True, slots=True)
class Box:
    """A part of a column, in units of the picture; ``kind`` is how it is coloured."""

    kind: str
    x: float
    y: float
    width: float
    height: float


@dataclass(frozen=True, slots=True)
class Label:
    """A text of the picture; at a column below it, at a line left of it."""

    x: float
    y: float
    text: str


@dataclass(frozen=True, slots=True)
class Chart:
    """A picture, and its numbers as a table: ``heads`` over ``rows``."""

    title: str
    boxes: Sequence[Box]
    below: Sequence[Label]
    beside: Sequence[Label]
    heads: Sequence[str]
    rows: Sequence[Sequence[str]]
    legend: Sequence[tuple[str, str]] = ()
    width: int = WIDTH
    height: int = HEIGHT


@dataclass(frozen=True, slots=True)
class _Column:
    label: str
    parts: Sequence[tuple[str, float]]


def operations_chart(hours: Sequence[HourCount]) -> Chart | None:
    """Return what was done by the hour, what failed on top of it; None where nothing was."""
    if not any(each.total for each in hours):
        return None
    columns = [
        _Column(
            f"{each.at:%H:%M}" if each.at.hour % _HOURS_BETWEEN_LABELS == 0 else "",
            (("good", each.total - each.failures), ("bad", each.failures)),
        )
        for each in hours
    ]
    rows = [(moment(each.at), count(each.total), count(each.failures)) for each in hours]
    title = f"Operations with keys of devices, by the hour since {moment(hours[0].at)}"
    legend = (("good", "succeeded"), ("bad", "failed"))
    return _chart(title, columns, ("Hour from", "Operations", "Failed"), rows, legend=legend)


def latency_chart(operation: Mapping[str, Any]) -> Chart | None:
    """Return how long decrypts took, of a summary's numbers of them; None where there was none."""
    if not operation["total"]:
        return None
    columns = [_Column(name, (("good", operation[name]),)) for name, _ in _PERCENTS]
    rows = [(f"{name}: {meaning}", f"{operation[name]} ms") for name, meaning in _PERCENTS]
    return _chart("How long decrypts took in the last 24 hours, in milliseconds", columns, ("", "Duration"), rows)


def due_chart(counts: Sequence[int]) -> Chart | None:
    """Return how many active keys are due when, given as ``active_by_date`` does; None where there is none."""
    if not any(counts):
        return None
    kinds = ("bad", *("good",) * (len(counts) - 2), "rest")
    columns = [_Column(short, ((kind, number),)) for (short, _), kind, number in zip(_DUE, kinds, counts, strict=True)]
    rows = [(long, count(number)) for (_, long), number in zip(_DUE, counts, strict=True)]
    return _chart("Active keys by when they are to be rotated", columns, ("To be rotated", "Keys"), rows)


def _chart(
    title: str,
    columns: Sequence[_Column],
    heads: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    legend: Sequence[tuple[str, str]] = (),
) -> Chart:
    top = _round_up(max(sum(number for _, number in column.parts) for column in columns))
    scale = (_BOTTOM - _TOP) / top
    place = (WIDTH - _LEFT) / len(columns)
    width = round(place * (1 - _GAP), 1)
    boxes, below = [], []
    for at, column in enumerate(columns):
        x = round(_LEFT + place * (at + _GAP / 2), 1)
        heights = [max(number * scale, _LEAST) if number else 0.0 for _, number in column.parts]
        for (kind, _), height, end in zip(column.parts, heights, accumulate(heights), strict=True):
            if height:
                boxes.append(Box(kind, x, round(_BOTTOM - end, 1), width, round(height, 1)))
        if column.label:
            middle = min(x + width / 2, WIDTH - len(column.label) * _HALF_LETTER)
            below.append(Label(round(middle, 1), HEIGHT - 8, column.label))
    beside = [
        Label(_LEFT - 6, round(_BOTTOM - share * (_BOTTOM - _TOP), 1), _number(share * top)) for share in (0, 0.5, 1)
    ]
    return Chart(title, boxes, below, beside, heads, rows, legend)


def _round_up(number: float) -> float:
    """Return the next number that begins with 1, 2 or 5 and has nothing else."""
    step = 10.0 ** (len(f"{number:.0f}") - 1) if number >= 1 else 10.0**-3
    while step < number:
        for factor in (1, 2, 5, 10):
            if step * factor >= number:
                return step * factor
        step *= 10
    return step


def _number(value: float) -> str:
    """Return a number of a line as it fits beside the picture."""
    for unit, sign in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= unit:
            return f"{value / unit:g} {sign}"
    return f"{value:g}"
