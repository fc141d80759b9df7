"""How long a secret is locked after how many failures."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from keystead.errors import ConfigurationError

_DOUBLINGS = 32


@dataclass(frozen=True, slots=True)
class Lockout:
    """The rule, for each user and kind of secret, across devices and nodes.

    Attributes:
        free: attempts that may fail before the secret is locked; after that one each time a lock is over.
        first: how long the first lock is; each further failure doubles it.
        longest: and no lock is longer.
    """

    free: int = 5
    first: timedelta = timedelta(minutes=1)
    longest: timedelta = timedelta(hours=24)

    def __post_init__(self) -> None:
        if self.free < 1 or not timedelta(0) < self.first <= self.longest:
            raise ConfigurationError("a lockout has one free attempt or more, and locks that begin above zero")

    def after(self, failures: int) -> timedelta | None:
        """Return for how long a secret is locked once so many attempts have failed; None while it is not."""
        if failures < self.free:
            return None
        return min(self.first * (1 << min(failures - self.free, _DOUBLINGS)), self.longest)
