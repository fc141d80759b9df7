"""How many requests a node takes of one token, and how many logins, in a second."""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

from keystead.errors import RateLimitedError

REMEMBERED: Final = 16_384
"""Tokens whose requests are counted; of more, those that asked last."""


class Limits:
    """Buckets that fill at a rate and hold what comes in one second; a request takes one from its own."""

    def __init__(self) -> None:
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, name: str, rate: int, now_s: float) -> None:
        """Let a request pass.

        Args:
            rate: requests in a second; 0 for any number.
            now_s: of a clock that only runs forward.

        Raises:
            RateLimitedError: there were too many; it says when the next may come.
        """
        if not rate:
            return
        left, at = self._buckets.pop(name, (float(rate), now_s))
        left = min(float(rate), left + (now_s - at) * rate)
        self._buckets[name] = (left - 1 if left >= 1 else left), now_s
        if len(self._buckets) > REMEMBERED:
            self._buckets.popitem(last=False)
        if left < 1:
            raise RateLimitedError("rate limit quota exceeded", retry_after_s=(1 - left) / rate)
