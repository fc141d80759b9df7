"""A store whose mark anybody with its database sets and takes off, and what its processes say to that."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from keystead.ledger.audit.chain import TrailState
from keystead.manager.manager import KeyManager
from tests.audit.places import Place, auditing_of, options, seal


class Setting:
    """A store, and the state folder of the processes that use it: one for all, or for each a new one."""

    def __init__(self, place: Place, folder: Path, *, has_journal: bool) -> None:
        self.place = place
        self._folder = folder
        self._has_journal = has_journal
        self._opened = 0

    def open(self, **given: Any) -> Any:
        """Give a manager, as of another process."""
        self._opened += 1
        name = "state" if self._has_journal else f"state-{self._opened}"
        return self.place.open(**({"audit": None, "state_dir": self._folder / name} | given))

    async def begin(self, *, sealed: bool = True) -> None:
        """Begin the trail, and write into it."""
        async with self.open(audit=options()) as km:
            await km.rotate_data_key()
            if sealed:
                await seal(km)

    async def end(self) -> None:
        """End the trail, sealed."""
        async with self.open(audit=None) as km:
            await km.audit.end("moving house")

    def unmark(self) -> None:
        """Take the mark off."""
        self.place.execute("UPDATE store_state SET audited = (1 = 0)")

    def mark(self) -> None:
        """Set the mark."""
        self.place.execute("UPDATE store_state SET audited = (1 = 1)")

    @property
    def is_marked(self) -> bool:
        """Whether the mark is set."""
        return bool(self.place.execute("SELECT audited FROM store_state")[0][0])


def takes_part(km: KeyManager) -> bool:
    """Return whether a manager writes into the trail."""
    return auditing_of(km).trail.is_on


def state_of(place: Place) -> TrailState:
    """Return the state beside the log."""
    [(content,)] = place.execute("SELECT state FROM audit_state")
    return TrailState.parse(bytes(content))


def found(messages: list[Any]) -> list[str]:
    """Return what was found, without its place."""
    return [str(each).partition(": ")[2] for each in messages]


async def acknowledged(km: KeyManager) -> None:
    """Say that somebody has looked into everything that there is."""
    await seal(km)
    [last] = await km.audit.entries(newest_first=True, limit=1)
    await km.audit.acknowledge(last.seq, reason="somebody was in the database")
    await seal(km)
