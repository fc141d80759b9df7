"""Row keys: what names the record of a row whose primary key the database draws. Spec: docs/spec/field-v1.md."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Final
from uuid import UUID

from keystead.ports import Random

ROW_KEY: Final = "keystead_row"
"""The name of the column of a table's row keys."""
_VERSION_AND_VARIANT: Final = 0x7 << 76 | 0b10 << 62
_RANDOM_BITS: Final = ~(0xF << 76 | 0b11 << 62) & (1 << 80) - 1


def new_row_key(*, random: Random = os.urandom, now_ns: Callable[[], int] = time.time_ns) -> UUID:
    """Return a UUID of version 7 (RFC 9562): the millisecond it was drawn in, and 74 random bits.

    Rows that are inserted one after the other have their keys side by side in its index, which takes them faster than
    keys that are strewn over it.
    """
    drawn = int.from_bytes(random(10), "big") & _RANDOM_BITS
    return UUID(int=(now_ns() // 1_000_000) << 80 | _VERSION_AND_VARIANT | drawn)
