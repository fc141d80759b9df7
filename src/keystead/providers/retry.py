"""How often a call to a KMS is repeated: pauses drawn at random, and a budget that an outage uses up."""

from __future__ import annotations

from typing import Final

from keystead.ports import Random

FIRST_PAUSE_S: Final = 0.1
LONGEST_PAUSE_S: Final = 2.0
BUDGET: Final = 20.0
"""Repetitions that may be made while nothing succeeds."""
EARNED: Final = 0.1
"""What a call that succeeds at once adds to the budget: one repetition for ten calls."""


def pause_s(failures: int, random: Random) -> float:
    """Draw a pause between nothing and a ceiling that doubles with every failure."""
    ceiling = min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2.0 ** (failures - 1))
    return float(ceiling * int.from_bytes(random(4), "big") / 2**32)


class RetryBudget:
    """Lets one provider instance's calls be repeated for as long as that helps.

    A repetition takes one unit. A call that succeeds gives back what its repetitions took, and one that succeeds at
    once earns a tenth: so a service that fails now and then is asked again every time, while one that fails always
    soon gets one call for each of ours, and comes back to no more than that.
    """

    def __init__(self) -> None:
        self._left = BUDGET

    def take(self) -> bool:
        """Return whether a call may be repeated once more."""
        if self._left < 1:
            return False
        self._left -= 1
        return True

    def succeeded(self, repetitions: int) -> None:
        """Note that a call succeeded, after so many repetitions."""
        self._left = min(BUDGET, self._left + (repetitions or EARNED))
