"""How fast what runs goes on: told by what a visitor saw at an earlier look, which the address carries.

So any node tells it, one that has just begun as well, and nothing is kept for it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final, Self
from urllib.parse import urlencode

from keystead.fields.standing import ReencryptionStanding

SPAN_S: Final = 20
"""After so long a later look takes the place of the one that is compared with."""
LIVE_S: Final = 900
"""For so long a page looks again by itself: it must not keep a session in use for good."""
MOST: Final = 50
_MOMENT: Final = re.compile(r"[0-9]{1,15}", re.ASCII)
_SEEN: Final = re.compile(r"([0-9A-Za-z_-]{1,64}):([0-9]{1,18})", re.ASCII)


@dataclass(frozen=True, slots=True)
class Look:
    """What a visitor has seen.

    Attributes:
        opened_ms: when the page was opened.
        at_ms: when the numbers in ``read`` were seen, of rows by the re-encryption's id.
    """

    opened_ms: int
    at_ms: int
    read: Mapping[str, int] = field(default_factory=dict)

    @classmethod
    def of(cls, asked: Mapping[str, str], now: datetime) -> Self:
        """Return what the address says; of what cannot be, nothing."""
        now_ms = int(now.timestamp() * 1000)
        opened, at = (_moment(asked.get(name, ""), now_ms) for name in ("opened", "at"))
        seen = [_SEEN.fullmatch(each) for each in asked.get("seen", "").split(",")[:MOST]]
        read = {} if at is None else {found[1]: int(found[2]) for found in seen if found is not None}
        return cls(now_ms if opened is None else opened, now_ms if at is None else at, read)

    def rows_per_s(self, standing: ReencryptionStanding, now: datetime) -> float | None:
        """Return how many rows a second were read since; None where that cannot be told yet."""
        seconds = now.timestamp() - self.at_ms / 1000
        before = self.read.get(standing.job.id)
        if before is None or seconds < 1 or standing.totals.read < before:
            return None
        return (standing.totals.read - before) / seconds

    def following(self, standings: Iterable[ReencryptionStanding], now: datetime) -> str:
        """Return what the address of the next look says."""
        now_ms = int(now.timestamp() * 1000)
        known = {each.job.id: each.totals.read for each in standings if each.is_worked_on}
        is_kept = known.keys() <= self.read.keys() and now_ms - self.at_ms < SPAN_S * 1000
        at_ms, read = (self.at_ms, self.read) if is_kept else (now_ms, known)
        seen = ",".join(f"{job}:{rows}" for job, rows in read.items())
        return urlencode({"opened": self.opened_ms, "at": at_ms, "seen": seen}, safe=":,")

    def is_live(self, now: datetime) -> bool:
        """Whether the page looks again by itself."""
        return now.timestamp() - self.opened_ms / 1000 < LIVE_S


def _moment(text: str, now_ms: int) -> int | None:
    at = int(text) if _MOMENT.fullmatch(text) else None
    return None if at is None or at > now_ms else at
