"""Lists that are told a part at a time, with where each goes on."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Annotated, Final, TypeVar

import typer

from keystead.cli.frame import say, wrong_usage
from keystead.cli.render import printable
from keystead.ports.access import Made

LIMIT: Final = 1000
"""How many are told at once."""
After = Annotated[
    str | None, typer.Option("--after", metavar="PLACE", help="Only those behind the place that the list before told.")
]
_MADE: Final = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z),([0-9a-f-]{1,36})", re.ASCII)
_BEGUN: Final = re.compile(r"(\d{1,18}),([\w-]{1,64})", re.ASCII)
T = TypeVar("T")
M = TypeVar("M", bound=Made)


def part_of(found: Sequence[T], place: Callable[[T], str]) -> tuple[Sequence[T], str | None]:
    """Return what is told of what was looked up, one more than that if there is more, and the place that it goes on at.

    That place is told to the person at the terminal, too.
    """
    shown = found[:LIMIT]
    if len(found) <= LIMIT:
        return shown, None
    behind = place(shown[-1])
    say(f"the first {LIMIT}; --after {printable(behind)} goes on")
    return shown, behind


def newest_of(found: Sequence[M]) -> tuple[Sequence[M], str | None]:
    """Return what ``part_of`` does, of a list whose newest comes first."""
    return part_of(found, lambda each: f"{each.created_at},{each.id}")


def newest_after(after: str | None) -> tuple[str, str] | None:
    """Return a place of such a list."""
    if after is None:
        return None
    found = _MADE.fullmatch(after) or _no_place()
    return found[1], found[2]


def begun_before(after: str | None) -> tuple[int, str] | None:
    """Return a place of a list of re-encryptions, whose newest comes first."""
    if after is None:
        return None
    found = _BEGUN.fullmatch(after) or _no_place()
    return int(found[1]), found[2]


def _no_place() -> re.Match[str]:
    wrong_usage("--after: this is no place of this list; it reads as the list before told it")
