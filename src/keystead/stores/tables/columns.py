"""What the tables are made of: the columns' types, and where they are gathered.

Times are RFC 3339 UTC text with microseconds, so that both databases give identical values and text order is time
order. Leases and heartbeats are integers of milliseconds, from the database's clock.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

from sqlalchemy import BigInteger, Dialect, Integer, MetaData, String, Text, TypeDecorator

from keystead.errors import InvalidInputError
from keystead.model import utc_text
from keystead.ports import RowFailure

VERSION_TABLE: Final = "keystead_version"

MIN_WRAPPED_BYTES: Final = 40
"""No raw AES key is this long and every wrapped one is: 32 bytes of key and at least 8 of integrity."""


class UtcText(TypeDecorator[datetime]):
    """An aware datetime as RFC 3339 UTC text with microseconds."""

    impl = String(27)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> str | None:
        """Return the text of ``value``; ``InvalidInputError`` when it has no time zone."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise InvalidInputError("times in the store are aware: give the datetime a time zone")
        return utc_text(value)

    def process_result_value(self, value: Any | None, dialect: Dialect) -> datetime | None:
        """Return the stored text as an aware UTC datetime; what is no time stays what it is."""
        try:
            return None if value is None else datetime.fromisoformat(value)
        except (TypeError, ValueError):
            return value


class ContextText(TypeDecorator[Mapping[str, str]]):
    """A context as JSON text in ASCII."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: Mapping[str, str] | None, dialect: Dialect) -> str:
        """Return the JSON of ``value``."""
        return json.dumps(dict(value or {}), sort_keys=True, separators=(",", ":"))

    def process_result_value(self, value: Any | None, dialect: Dialect) -> Any:
        """Return the stored pairs; what is no JSON stays what it is."""
        try:
            return json.loads(value) if value else {}
        except (TypeError, ValueError):
            return value


class FailuresText(TypeDecorator[tuple[RowFailure, ...]]):
    """Rows that failed, as a JSON list in ASCII."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: tuple[RowFailure, ...] | None, dialect: Dialect) -> str:
        """Return the JSON of ``value``."""
        return json.dumps([{"key": each.key, "reason": each.reason} for each in value or ()], separators=(",", ":"))

    def process_result_value(self, value: Any | None, dialect: Dialect) -> Any:
        """Return the stored failures; what is none stays what it is."""
        try:
            return tuple(RowFailure(each["key"], each["reason"]) for each in json.loads(value or "[]"))
        except (KeyError, TypeError, ValueError):
            return value


BIG: Final = BigInteger().with_variant(Integer, "sqlite")
metadata: Final = MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    }
)
