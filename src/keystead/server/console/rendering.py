"""Templates, and how moments and numbers read."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any, Final
from urllib.parse import quote

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

MOST_COUNTED: Final = 10_000
"""What grows without end is counted up to here: no page takes longer for it."""
_STEPS: Final = (("day", 86_400), ("hour", 3600), ("minute", 60), ("second", 1))
_CODE: Final = re.compile("`([^`]+)`")
_SIZES: Final = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")


@cache
def environment() -> Environment:
    """Return the templates: what is put into a page is text, wherever it comes from."""
    made = Environment(
        loader=PackageLoader("keystead.server.console"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {
        "moment": moment,
        "far": far,
        "size": size,
        "count": count,
        "bounded": bounded,
        "part": part,
        "prose": prose,
        "length_of": length_of,
    }
    return made


def render(template: str, **values: Any) -> str:
    """Return a page."""
    return environment().get_template(template).render(**values)


def moment(at: datetime) -> str:
    """Return a moment as it is read, in UTC."""
    return at.astimezone(UTC).strftime("%Y-%m-%d %H:%M UTC")


def far(at: datetime, now: datetime) -> str:
    """Return how long ago a moment was, or how far off it is."""
    away = at - now
    told = span(abs(away))
    return f"in {told}" if away > timedelta(0) else f"{told} ago"


def span(length: timedelta) -> str:
    """Return a length of time in its largest unit."""
    seconds = int(length.total_seconds())
    for name, unit in _STEPS:
        if seconds >= unit:
            number = seconds // unit
            return f"{number} {name}{'' if number == 1 else 's'}"
    return "a moment"


def length_of(seconds: float) -> str:
    """Return a length of time in seconds as ``span`` does."""
    return span(timedelta(seconds=seconds))


def size(number: int) -> str:
    """Return a number of bytes in a unit that fits."""
    value = float(number)
    for unit in _SIZES:
        if value < 1024 or unit == _SIZES[-1]:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    raise AssertionError("the last unit fits every number")


def count(number: int) -> str:
    """Return a number with its thousands apart."""
    return f"{number:,}".replace(",", "\u202f")


def bounded(number: int) -> str:
    """Return a number that was counted up to ``MOST_COUNTED + 1``."""
    return count(number) if number <= MOST_COUNTED else f"more than {count(MOST_COUNTED)}"


def prose(text: str) -> Markup:
    """Return a sentence with what stands between backticks as code; all of it is text."""
    told = Markup()
    for index, piece in enumerate(_CODE.split(text)):
        told += Markup("<code>{}</code>").format(piece) if index % 2 else escape(piece)
    return told


def part(text: str) -> str:
    """Return a text as a part of a path or of a query; a slash stays one."""
    return quote(text, safe="/")
