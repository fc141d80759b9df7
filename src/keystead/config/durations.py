"""Durations as people write them: ``24h``, ``90d``, ``1h30m``, or a number of seconds."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Final

from keystead.errors import ConfigurationError

_SECONDS: Final = {"w": 604_800.0, "d": 86_400.0, "h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001, "us": 1e-6, "ns": 1e-9}
_PART: Final = re.compile(r"(\d+(?:\.\d+)?)(ms|us|ns|[wdhms])")
_WHOLE: Final = re.compile(rf"(?:{_PART.pattern})+")
_LONGEST_S: Final = 100 * 366 * 86_400.0


def parse_duration(value: object) -> timedelta:
    """Return a duration: parts such as ``1h30m`` (w, d, h, m, s, ms, us, ns), or a number of seconds.

    Raises:
        ConfigurationError: another form, below zero, or longer than a century.
    """
    if isinstance(value, timedelta):
        seconds = value.total_seconds()
    elif isinstance(value, int | float) and not isinstance(value, bool):
        seconds = float(value)
    elif isinstance(value, str) and _WHOLE.fullmatch(text := value.strip().lower()):
        seconds = sum(float(number) * _SECONDS[unit] for number, unit in _PART.findall(text))
    elif isinstance(value, str) and re.fullmatch(r"\d+(\.\d+)?", value.strip()):
        seconds = float(value)
    else:
        raise ConfigurationError("a duration reads like 30s, 24h, 90d or 1h30m, or is a number of seconds")
    if not 0 <= seconds <= _LONGEST_S:
        raise ConfigurationError("a duration is between zero and a hundred years")
    return timedelta(seconds=seconds)


def duration_text(value: timedelta) -> str:
    """Return ``value`` in the form ``parse_duration`` reads: ``90d``, ``1h30m``, ``0s``."""
    rest = value.total_seconds()
    parts = []
    for unit in ("d", "h", "m"):
        count, rest = divmod(rest, _SECONDS[unit])
        if count:
            parts.append(f"{count:.0f}{unit}")
    if rest or not parts:
        parts.append(f"{rest:g}s")
    return "".join(parts)


def age_text(seconds: float) -> str:
    """Return an age in whole seconds, in the form of ``duration_text``."""
    return duration_text(timedelta(seconds=round(seconds)))
