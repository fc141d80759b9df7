"""Answers: the same data as JSON for programs, and as text for people."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from datetime import UTC, datetime, timedelta
from enum import Enum
from pathlib import Path
from typing import Any, Final

from rich.box import SIMPLE_HEAD
from rich.console import Console, RenderableType
from rich.table import Table

_IDS: Final = ("id", "data_key_id", "wrapped_by")


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a command answers. ``data`` is the JSON; ``text`` is what a person sees, nothing if it is None."""

    data: Any
    text: RenderableType | None = None
    exit_code: int = 0


def show(outcome: Outcome, *, is_json: bool) -> None:
    """Print an answer on stdout."""
    if is_json:
        print(json.dumps(plain(outcome.data), indent=2, ensure_ascii=False))
    elif isinstance(outcome.text, str):
        print(outcome.text)
    elif outcome.text is not None:
        # A pipe gets whole lines, however long.
        width = None if sys.stdout.isatty() else 240
        Console(file=sys.stdout, width=width, highlight=False, markup=False).print(outcome.text)


def plain(value: Any) -> Any:
    """Return ``value`` in types JSON has. Ids of data keys become text: they have 63 bits, JSON readers often 53."""
    if is_dataclass(value) and not isinstance(value, type):
        return plain({field.name: getattr(value, field.name) for field in fields(value)})
    if isinstance(value, Mapping):
        return {str(key): _plain_member(str(key), member) for key, member in value.items()}
    if isinstance(value, str | bool | int | float | None):
        return value.value if isinstance(value, Enum) else value
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat()
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, Sequence | set | frozenset):
        return [plain(each) for each in value]
    return str(value)


def _plain_member(key: str, member: Any) -> Any:
    if key in _IDS and isinstance(member, int):
        return str(member)
    return plain(member)


def moment(value: datetime | None) -> str:
    """Return a time for a person: UTC, to the minute."""
    return "-" if value is None else value.astimezone(UTC).strftime("%Y-%m-%d %H:%MZ")


def exact_moment(value: datetime | None) -> str:
    """Return a time for a person: UTC, to the second."""
    return "-" if value is None else value.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%SZ")


def printable(text: str) -> str:
    """Return a text that a terminal shows and does not act upon."""
    return "".join(sign if sign.isprintable() or sign in "\n\t" else f"\\x{ord(sign):02x}" for sign in text)


def cell(value: object) -> object:
    """Return a value as a table for a person shows it."""
    if isinstance(value, datetime):
        return moment(value)
    return "-" if value in (None, "") else printable(value) if isinstance(value, str) else value


def table(*columns: str, rows: Sequence[Sequence[object]]) -> Table:
    """Return a plain table; numbers stand on the right."""
    made = Table(box=SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for index, name in enumerate(columns):
        are_numbers = bool(rows) and all(isinstance(row[index], int) for row in rows)
        made.add_column(name, justify="right" if are_numbers else "left", overflow="fold")
    for row in rows:
        made.add_row(*(str(cell) for cell in row))
    return made


def pairs(rows: Sequence[tuple[str, object]]) -> str:
    """Return lines of name and value, the values in one column."""
    width = max((len(name) for name, _ in rows), default=0)
    return "\n".join(f"{name:<{width}}  {value}" for name, value in rows)
