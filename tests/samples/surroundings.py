"""What the samples take for granted around them."""

from __future__ import annotations

from typing import Any


class Database:
    """Keeps what it is given."""

    def __init__(self) -> None:
        self.saved: list[Any] = []

    def save(self, *values: Any, **named: Any) -> None:
        """Keep every value."""
        self.saved += [*values, *named.values()]
