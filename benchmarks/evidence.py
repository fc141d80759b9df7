"""How much of its bars each scenario of docs/evidence.md used, read from the page itself."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

_HEAD: Final = re.compile(r"^## (\S+)$", re.MULTILINE)
_ROW: Final = re.compile(r"^\| (?P<where>[^|]*) \| (?P<what>[^|]*) \| (?P<value>[^|]*) \| (?P<bar>[^|]+) \| [^|]+ \|$")


@dataclass(frozen=True, slots=True)
class Scenario:
    """A scenario of the page.

    Attributes:
        exact: how many figures were to be one value, and were.
        missed: how many figures missed their bars.
        used: of each figure that was to be at most or at least so much, the part of its bar that it used: 1 is the bar.
        nearest: what the figure was that came nearest to its bar; empty where there is none.
    """

    name: str
    exact: int
    missed: int
    used: tuple[float, ...]
    nearest: str

    @property
    def label(self) -> str:
        """What is written beside it."""
        nearest = [f"{100 * max(self.used):.0f} %: {self.nearest}"] if self.used else []
        exact = [f"{self.exact} exact"] if self.exact else []
        return "; ".join([*nearest, *exact, *([f"{self.missed} MISSED"] if self.missed else [])])


def scenarios(page: str) -> list[Scenario]:
    """Return the scenarios of a page, in its order."""
    heads = list(_HEAD.finditer(page))
    ends = [head.start() for head in heads[1:]] + [len(page)]
    return [_scenario(head[1], page[head.end() : end]) for head, end in zip(heads, ends, strict=True)]


def _scenario(name: str, section: str) -> Scenario:
    exact = missed = 0
    used: list[tuple[float, str]] = []
    for row in _rows(section):
        missed += "**no**" in row[0]
        sign, _, bar = row["bar"].strip().partition(" ")
        if sign == "=":
            exact += "**no**" not in row[0]
        else:
            value, limit = _number(row["value"]), _number(bar)
            used.append((value / limit if sign == "<=" else limit / value, row["what"].strip()))
    nearest = max(used)[1] if used else ""
    return Scenario(name, exact, missed, tuple(part for part, _ in used), nearest)


def _rows(section: str) -> Iterator[re.Match[str]]:
    for line in section.splitlines():
        row = _ROW.match(line)
        if row is not None and row["bar"].strip().startswith(("=", "<=", ">=")):
            yield row


def _number(text: str) -> float:
    return float(text.replace(" ", ""))
