"""How much of what does not decrypt is taken from one user: it is no guess at a secret, and costs work all the same."""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

from keystead import telemetry
from keystead.errors import RateLimitedError
from keystead.model import Principal
from keystead.ports import Clock

AT_ONCE: Final = 20
"""Such requests of a user that are taken one after the other; each is free again after ``EACH_S`` seconds."""
EACH_S: Final = 3.0
KNOWN: Final = 10_000
"""Users that are remembered; of more, those who were longest without such a request are forgotten."""


class JunkLimit:
    """A limit for each user, in each process; what it counts is lost with the process and harms nobody."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._free_at: OrderedDict[Principal, float] = OrderedDict()

    def check(self, who: Principal) -> None:
        """Raise ``RateLimitedError`` if a user has sent too much of it."""
        if not self._free_at or (free_at := self._free_at.get(who)) is None:
            return
        wait_s = free_at - AT_ONCE * EACH_S + EACH_S - self._clock.monotonic()
        if wait_s > 0:
            telemetry.junk_refused()
            raise RateLimitedError(
                f"too much that does not decrypt was sent; try again in {wait_s:.0f} seconds", retry_after_s=wait_s
            )

    def count(self, who: Principal) -> None:
        """Count one."""
        now = self._clock.monotonic()
        self._free_at[who] = max(self._free_at.get(who, now), now) + EACH_S
        self._free_at.move_to_end(who)
        if len(self._free_at) > KNOWN:
            self._free_at.popitem(last=False)
