"""What the database holds of the values that name a record or a tenant.

A ciphertext is bound to what its row's columns hold. A value that the database would hold in another form, such as the
text "007" in a column of integers, would bind it to a row that is not there.
"""

from __future__ import annotations

import re
from datetime import date, datetime
from typing import Any, Final
from uuid import UUID

from keystead.errors import InvalidInputError

_TAKEN: Final[dict[type, Any]] = {
    int: int,
    str: (str, int, UUID),
    bytes: (bytes, bytearray, memoryview),
    date: date,
}
"""What each kind of column takes so that it holds the same text: psycopg and SQLite turn the others into it."""
_INTEGER: Final = re.compile(r"0|-?[1-9][0-9]*")


def as_held(kind: type, value: Any) -> Any:
    """Return what a column of a kind (UUID, int, str, bytes or date) holds of ``value``; None stays None.

    Raises:
        InvalidInputError: the column would hold something else, or that depends on the database.
    """
    if value is None or value.__class__ is kind:
        return value
    if kind is UUID:
        if isinstance(value, str):
            try:
                return UUID(value)
            except ValueError:
                pass
    elif kind is int and isinstance(value, str):
        # Frameworks hand over the digits of a path. What is written otherwise, "007", the database holds as 7.
        if _INTEGER.fullmatch(value):
            return int(value)
    elif isinstance(value, _TAKEN[kind]) and not isinstance(value, bool | datetime):
        return value
    raise InvalidInputError(
        f"a record or tenant in a column of {kind.__name__} values is named by one, as the column holds it, not by "
        f"this {type(value).__name__}"
    )
