"""Who and what the example has: its application's table, the people in it, and users with devices."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Final

from keystead.cli.demo.people import People, read_people
from keystead.cli.demo.table import DemoTable
from keystead.fields import Field
from keystead.model import Principal

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
