"""Reading the key tables of the Go KMS (kratos-boilerplate), in both layouts; never changing them.

``data_keys`` has text versions and may hold keys in clear (``key_data``); ``kms_data_keys`` has ``status`` or
``is_active``. What a layout lacks is absent here. Spec: docs/spec/legacy-forms.md.
"""

from __future__ import annotations

import base64
import contextlib
import re
import sqlite3
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, Engine, NullPool, column, create_engine, inspect, select, table, text

from keystead.crypto.legacy import LegacyKey
from keystead.errors import ConfigurationError, ForeignSchemaError
from keystead.stores.engines import BUSY_TIMEOUT_S, begin_explicitly, sqlite_uri, sync_engine
from keystead.stores.failures import ours_only
from keystead.stores.handles import open_handles
from keystead.stores.tables import VERSION_TABLE
from keystead.stores.urls import StoreUrl, parse_url

TABLES: Final = ("data_keys", "kms_data_keys")
COLUMNS: Final = ("version", "encrypted_key", "key_data", "created_at", "expires_at", "status")

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_TIME: Final = re.compile(
    r"(\d{4}-\d\d-\d\d)[T ](\d\d:\d\d:\d\d)(?:[.,](\d{1,9}))?\s*(Z|UTC|[+-]\d\d(?::?\d\d)?)?(?:\s+\S+)*"
)


def read_legacy_keys(url: str, *, schema: str | None = None) -> list[LegacyKey]:
    """Return every key of the source, oldest first. Blocks.

    The database is opened read-only, and read in one transaction.

    Raises:
        ConfigurationError: a URL that names no database, or one without a key table.
        ForeignSchemaError: the tables are Keystead's own, or lack the columns of a key table.
        StorageOperationError: the database cannot be read.
    """
    parsed = parse_url(url, schema=schema)
    if parsed.kind == "memory":
        raise ConfigurationError("a database in memory holds no older keys; name an SQLite file or a PostgreSQL one")
    engine = _reading_engine(parsed)
    with ours_only(), open_handles.transaction(), engine.connect() as connection:
        if connection.dialect.name == "postgresql":
            connection.execute(text("SET TRANSACTION READ ONLY"))
        return sorted(_keys(connection, parsed.schema), key=_age)


def _reading_engine(url: StoreUrl) -> Engine:
    if url.path is None:
        return sync_engine(url)
    location = sqlite_uri(url.path, is_reading=True)
    engine = create_engine(
        "sqlite:///source",
        creator=lambda: sqlite3.connect(
            location, uri=True, isolation_level=None, timeout=BUSY_TIMEOUT_S, check_same_thread=False
        ),
        poolclass=NullPool,
        hide_parameters=True,
    )
    begin_explicitly(engine)
    return engine


def _keys(connection: Connection, schema: str | None) -> Iterable[LegacyKey]:
    names = set(inspect(connection).get_table_names(schema=schema))
    if VERSION_TABLE in names:
        raise ForeignSchemaError(
            "the tables at --from are a Keystead store's own; move a store with `keystead store export` and `import`"
        )
    found = [name for name in TABLES if name in names]
    if not found:
        raise ConfigurationError(
            "the database at --from holds neither a table data_keys nor kms_data_keys; check its URL and schema"
        )
    for name in found:
        present = {each["name"] for each in inspect(connection).get_columns(name, schema=schema)}
        if not {"version", "encrypted_key"} <= present:
            raise ForeignSchemaError(f"the table {name} at --from has no columns version and encrypted_key")
        # Columns without a type: SQLite's times are text in more spellings than a type would read.
        wanted: list[ColumnElement[Any]] = [column(each) for each in COLUMNS if each in present]
        for row in connection.execute(select(*wanted).select_from(table(name, schema=schema))).mappings():
            yield _key(row)


def _key(row: Mapping[Any, Any]) -> LegacyKey:
    return LegacyKey(
        version=str(row["version"]),
        wrapped_key=_bytes(row["encrypted_key"]),
        exposed_key=_exposed(row.get("key_data")),
        created_at=_time(row.get("created_at")),
        expires_at=_time(row.get("expires_at")),
        is_revoked=row.get("status") == "revoked",
    )


def _age(key: LegacyKey) -> tuple[bool, datetime, int]:
    digits = key.version.removeprefix("v")
    number = int(digits) if digits.isascii() and digits.isdigit() else 0
    return key.created_at is None, key.created_at or _EPOCH, number


def _exposed(value: object) -> bytes:
    """Return the key in clear; nothing where the column was blanked with zeros after the fact."""
    raw = _bytes(value)
    return raw if raw.strip(b"\0") else b""


def _bytes(value: object) -> bytes:
    """Return a column's bytes; text is taken as hex or base64, or as it is where it is neither."""
    if not isinstance(value, str):
        return b"" if value is None else bytes(memoryview(value))  # type: ignore[arg-type]
    for decode in (bytes.fromhex, lambda each: base64.b64decode(each, validate=True)):
        with contextlib.suppress(ValueError):
            return decode(value)
    return value.encode()


def _time(value: object) -> datetime | None:
    """Return a time as drivers of several languages wrote it; without a zone it is UTC."""
    if isinstance(value, datetime):
        return value.astimezone(UTC) if value.tzinfo else value.replace(tzinfo=UTC)
    match = _TIME.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        return None
    day, clock, fraction, zone = match.groups()
    try:
        moment = datetime.fromisoformat(f"{day}T{clock}{'+00:00' if zone in (None, 'Z', 'UTC') else zone}")
    except ValueError:
        return None
    return moment.astimezone(UTC) + timedelta(microseconds=int((fraction or "0").ljust(6, "0")[:6]))
