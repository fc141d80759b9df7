"""What a scenario is given, and what it returns."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, TypeVar

from soak.places import Databases

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Figure:
    """One measured value beside its bar; ``is_met`` is None for what is only told."""

    where: str
    what: str
    value: str
    bar: str = ""
    is_met: bool | None = None


@dataclass(frozen=True, slots=True)
class Setting:
    """The length of a run, a folder of its own, and the databases."""

    is_full: bool
    folder: Path
    databases: Databases

    def choose(self, *, short: T, full: T) -> T:
        """Return the value for this run's length."""
        return full if self.is_full else short


@dataclass(slots=True)
class Figures:
    """Collects the figures of one scenario."""

    rows: list[Figure] = field(default_factory=list)

    def tell(self, where: str, what: str, value: object) -> None:
        """Add a value that has no bar."""
        self.rows.append(Figure(where, what, _text(value)))

    def equal(self, where: str, what: str, value: object, bar: object) -> None:
        """Add a value that must be ``bar``."""
        self.rows.append(Figure(where, what, _text(value), f"= {_text(bar)}", value == bar))

    def at_most(self, where: str, what: str, value: float, bar: float) -> None:
        """Add a value that must not be above ``bar``."""
        self.rows.append(Figure(where, what, _text(value), f"<= {_text(bar)}", value <= bar))

    def at_least(self, where: str, what: str, value: float, bar: float) -> None:
        """Add a value that must not be below ``bar``."""
        self.rows.append(Figure(where, what, _text(value), f">= {_text(bar)}", value >= bar))


class Scenario(Protocol):
    """One property, shown by force."""

    @property
    def name(self) -> str:
        """The word by which the command line knows it."""

    @property
    def claim(self) -> str:
        """The property, as a sentence."""

    def run(self, setting: Setting) -> list[Figure]:
        """Run to the end and return what was seen."""


def _text(value: object) -> str:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    if isinstance(value, int):
        return f"{value:,}".replace(",", " ")
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}".replace(",", " ")
