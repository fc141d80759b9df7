"""The example of ``keystead serve --dev`` in an empty folder: where it is, what it has, and how it is made.

It is made by the functions that the service and the command line call, at a clock that runs from half a year ago to
now, so that keys are of different ages and charts have a day behind them.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

from keystead.cli.demo_people import People, read_people
from keystead.cli.demo_table import DemoTable
from keystead.config.service import load_service
from keystead.config.sources import LoadedSettings
from keystead.fields import Field
from keystead.manager.installation import SETTINGS_FILE, Installation, install
from keystead.model import Principal
from keystead.runtime.clock import SystemClock

DATABASE: Final = "example.db"
ROWS: Final = 3000
COLUMNS: Final = ("name", "email", "city", "country")
PERSONAL: Final = ("name", "email")
USERS: Final = ("ada", "bo", "chiara", "deniz")
"""Who has a device that is used."""
KIOSK: Final = "kiosk"
"""Whose device sends what often does not decrypt."""
LOCKED: Final = "milo"
PASSCODE: Final = "correct horse battery"
MAX_BYTES: Final = 100_000_000
OLDEST: Final = timedelta(days=200)
_SETTINGS: Final = f"""
# Of the example: a version is to be replaced after so many bytes, and by whoever looks at the console.
rotation:
  enabled: false
  max_bytes: {MAX_BYTES}
"""


class PastClock(SystemClock):
    """The machine's clock, put back; the time that only runs forward is the machine's."""

    def __init__(self, ago: timedelta) -> None:
        self.ago = ago

    def now(self) -> datetime:
        """Return the wall time, put back."""
        return super().now() - self.ago


@dataclass(frozen=True, slots=True)
class Example:
    """The example in a folder."""

    folder: Path

    @property
    def table(self) -> DemoTable:
        """The application's table, whose personal columns are encrypted."""
        return DemoTable(self.folder / DATABASE, COLUMNS, PERSONAL)

    @property
    def field(self) -> Field:
        """The column that is being re-encrypted."""
        return self.table.fields()["email"]


def is_called_for(loaded: LoadedSettings, folder: Path) -> bool:
    """Whether a folder may be made ready: no store or KEK is set anywhere, and there is nothing in it.

    What is hidden does not count, nor do virtual environments.
    """
    settings = loaded.settings
    if loaded.path or settings.store or settings.kms or settings.providers or settings.is_production:
        return False
    return all(each.name.startswith(".") or (each / "pyvenv.cfg").exists() for each in folder.iterdir())


def found_in(loaded: LoadedSettings) -> Example | None:
    """Return the example that settings lie beside, if any."""
    if loaded.path is None or loaded.path.name != SETTINGS_FILE:
        return None
    folder = loaded.path.absolute().parent
    return Example(folder) if (folder / DATABASE).is_file() else None


def prepare(folder: Path, *, has_example: bool) -> Installation:
    """Make settings, KEK and store; with an example, as if that had been half a year ago."""
    if not has_example:
        return install(folder)
    return install(folder, more=_SETTINGS, clock=PastClock(OLDEST))


def make(folder: Path) -> None:
    """Make the example over the store that ``prepare`` has made; takes some seconds."""
    # Keys are made under a policy that gives them a date; no pair is made before somebody asks for it.
    loaded = load_service(folder / SETTINGS_FILE, flags={"rotation.enabled": True, "client_keys.ready": 0})
    asyncio.run(_make(loaded, Example(folder.absolute())))


async def _make(loaded: LoadedSettings, example: Example) -> None:
    from keystead.cli.example_past import agenda
    from keystead.server.opening import opened_manager
    from keystead.server.service import opened

    clock = PastClock(OLDEST)
    async with opened_manager(loaded, clock) as km, opened(km, loaded, is_development=True) as service:
        for ago, step in agenda(service, example):
            clock.ago = ago
            await step()


def people() -> People:
    """Return the people of the table, who are invented."""
    found = read_people(None, list(PERSONAL))
    rows = [{column: row[column] for column in COLUMNS} for row in found.rows[:ROWS]]
    return replace(found, columns=list(COLUMNS), rows=rows)


def owner(user: str) -> Principal:
    """Return a user of the example, who is of no tenant."""
    return Principal(user)


def device_of(user: str) -> str:
    """Return the device of a user."""
    return f"phone-of-{user}" if user in (*USERS, LOCKED) else f"{user}-7"
