"""What a keyring holds at one moment."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from keystead.model import DataKeyState


@dataclass(slots=True, eq=False)
class LoadedKey:
    """One usable version: id, version number, and the data key itself in a buffer that can be wiped.

    ``outside`` is a symmetric key as it was brought in from outside, empty for one that was drawn here.
    """

    id: int
    version: int
    key: bytearray = field(repr=False)
    outside: bytearray = field(default_factory=bytearray, repr=False)

    def wipe(self) -> None:
        """Overwrite the key with zeros."""
        self.key[:] = bytes(len(self.key))
        self.outside[:] = bytes(len(self.outside))


def cure_of(state: DataKeyState) -> str:
    """Return what can be done about a key that is in a state in which nothing may be read with it."""
    if state is DataKeyState.DESTROYED:
        return "what it encrypted is gone for good"
    return "`keystead key enable` (after cancel-destroy, where destruction is pending) lets it decrypt again"


@dataclass(frozen=True, slots=True)
class KeyringSnapshot:
    """The versions of a keyring at one moment.

    ``keys`` may decrypt; ``active`` is the id that encrypts, since ``active_since`` and until ``encrypt_until`` (aware
    UTC; None = no end), and due for rotation at ``rotate_after``. ``withheld`` names the state of versions that exist
    and may not be used.
    """

    keys: Mapping[int, LoadedKey] = field(default_factory=dict)
    active: int | None = None
    active_since: datetime | None = None
    rotate_after: datetime | None = None
    encrypt_until: datetime | None = None
    withheld: Mapping[int, DataKeyState] = field(default_factory=dict)

    @property
    def active_key(self) -> LoadedKey | None:
        """The version that encrypts."""
        return None if self.active is None else self.keys.get(self.active)
