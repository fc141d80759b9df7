"""What was found good a moment ago, and is not looked up again so soon."""

from __future__ import annotations

from collections import OrderedDict
from hashlib import sha256
from typing import Final, Generic, TypeVar

from keystead.model import utc_text
from keystead.ports import Clock

T = TypeVar("T")
REMEMBERED_S: Final = 4.0
"""How long: so soon a revocation holds on every node."""
REMEMBERED: Final = 4096


class Remembered(Generic[T]):
    """What texts that are shown stand for; of the texts themselves nothing is kept."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._good: OrderedDict[bytes, tuple[float, T, str | None]] = OrderedDict()

    def get(self, text: str) -> T | None:
        """Return what a text was found to stand for; None where that is too long ago, or its end has come."""
        known = self._good.get(_digest(text))
        if known is None:
            return None
        until, found, ends = known
        if self._clock.monotonic() < until and (ends is None or utc_text(self._clock.now()) < ends):
            return found
        self.forget(text)
        return None

    def keep(self, text: str, found: T, ends: str | None) -> None:
        """Remember what a text stands for, up to its end."""
        self._good[_digest(text)] = self._clock.monotonic() + REMEMBERED_S, found, ends
        if len(self._good) > REMEMBERED:
            self._good.popitem(last=False)

    def forget(self, text: str) -> None:
        """Forget a text."""
        self._good.pop(_digest(text), None)

    def clear(self) -> None:
        """Forget everything."""
        self._good.clear()

    def __len__(self) -> int:
        return len(self._good)


def _digest(text: str) -> bytes:
    return sha256(text.encode("utf-8", "surrogatepass")).digest()
