"""Versions of a keyring on a time line, as a picture: who encrypted when, and what decrypts still."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from keystead.model import DataKeyInfo, DataKeyState

WIDTH: Final = 720
ROW: Final = 22
SHOWN: Final = 12
_LEFT: Final = 48
_LEAST: Final = 3.0


@dataclass(frozen=True, slots=True)
class Bar:
    """A version: where it lies, in units of the picture; ``until`` is where it stopped encrypting."""

    version: int
    state: DataKeyState
    y: int
    start: float
    until: float
    end: float


@dataclass(frozen=True, slots=True)
class TimeLine:
    """The picture, and the moments at its ends."""

    bars: Sequence[Bar]
    begins: datetime
    ends: datetime
    width: int
    height: int


def time_line(versions: Sequence[DataKeyInfo], now: datetime) -> TimeLine | None:
    """Return the newest versions, given by their number, up to now; None where there is none."""
    shown = versions[-SHOWN:]
    if not shown:
        return None
    begins = min(_begun(each) for each in shown)
    whole = max(now - begins, timedelta(seconds=1))

    def place(at: datetime) -> float:
        share = min(max((at - begins) / whole, 0.0), 1.0)
        return round(_LEFT + share * (WIDTH - _LEFT - _LEAST), 1)

    bars = []
    for index, version in enumerate(shown):
        following = shown[index + 1] if index + 1 < len(shown) else None
        start = place(_begun(version))
        replaced = now if following is None or following.activated_at is None else following.activated_at
        until = max(place(replaced), start + _LEAST) if version.activated_at is not None else start
        y = (len(shown) - 1 - index) * ROW
        bars.append(Bar(version.version, version.state, y, start, until, max(place(now), start + _LEAST)))
    return TimeLine(bars[::-1], begins, now, WIDTH, len(shown) * ROW)


def _begun(version: DataKeyInfo) -> datetime:
    return version.activated_at or version.created_at
