"""Durations as clients of Vault send them: a number of seconds, or a text such as ``90``, ``5h`` or ``1h30m``."""

from __future__ import annotations

import re
from typing import Any, Final

from keystead.server.vault.answers import VaultRefusalError

_UNITS: Final = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86_400}
_PART: Final = re.compile(r"([0-9]{1,12}(?:\.[0-9]{1,9})?)(ms|[smhd])")
_WHOLE: Final = re.compile(rf"(?:{_PART.pattern})+")
_MOST_S: Final = 10**12


def duration_s(field: str, value: Any) -> int:
    """Return a parameter in whole seconds; 0 for null and an empty text.

    Raises:
        VaultRefusalError: it is none, is negative, or is longer than any.
    """
    found: float | None = None
    if value is None or value == "":
        found = 0
    elif isinstance(value, int) and not isinstance(value, bool):
        found = value
    elif isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 20:
        found = int(value)
    elif isinstance(value, str) and _WHOLE.fullmatch(value):
        found = sum(float(number) * _UNITS[unit] for number, unit in _PART.findall(value))
    if found is None or not 0 <= found <= _MOST_S:
        shown = f'"{value[:100]}"' if isinstance(value, str) else "it is no text and no number"
        told = f'error converting input for field "{field}": time: invalid duration {shown}'
        raise VaultRefusalError(400, f"Field validation failed: {told}")
    return int(found)


def shown(total_s: int) -> str:
    """Return seconds as Vault shows them: ``5h``, ``1h30m``, ``90s`` as ``1m30s``."""
    hours, rest = divmod(total_s, 3600)
    parts = [f"{number}{unit}" for number, unit in ((hours, "h"), (rest // 60, "m"), (rest % 60, "s")) if number]
    return "".join(parts) or "0s"
