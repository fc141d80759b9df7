"""The one schema, for SQLite and PostgreSQL. The migrations must give exactly these tables; a test compares them.

Times are RFC 3339 UTC text with microseconds, so that both databases give identical values and text order is time
order. Leases and heartbeats are integers of milliseconds, from the database's clock.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Dialect,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    TypeDecorator,
    UniqueConstraint,
    text,
)

from keystead.errors import InvalidInputError
from keystead.model import DataKeyState, utc_text
from keystead.ports import PairKind, ReencryptionState, RowFailure

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


_big = BigInteger().with_variant(Integer, "sqlite")
_states = ", ".join(f"'{state.value}'" for state in DataKeyState)
_pair_kinds = ", ".join(f"'{kind.value}'" for kind in PairKind)
_job_states = ", ".join(f"'{state.value}'" for state in ReencryptionState)

metadata: Final = MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    }
)

store_state: Final = Table(
    "store_state",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("store_id", String(32), nullable=False),
    Column("epoch", BigInteger, nullable=False),
    Column("restored", Boolean, nullable=False),
    Column("usable_from", String(32), nullable=False),
    Column("created_at", UtcText, nullable=False),
    Column("audited", Boolean),
    CheckConstraint("id = 1", name="one_row"),
    CheckConstraint("length(store_id) = 32", name="store_id_length"),
)

keyrings: Final = Table(
    "keyrings",
    metadata,
    Column("name", String(255), primary_key=True),
    Column("purpose", String(16), nullable=False),
    Column("algorithm", String(64), nullable=False),
    Column("wrap_keyring", String(255), nullable=False),
    Column("next_version", BigInteger, nullable=False),
    Column("created_at", UtcText, nullable=False),
    CheckConstraint("next_version > 0", name="next_version_positive"),
)

data_keys: Final = Table(
    "data_keys",
    metadata,
    Column("id", _big, primary_key=True, autoincrement=False),
    Column("keyring", String(255), ForeignKey(keyrings.c.name), nullable=False),
    Column("version", BigInteger, nullable=False),
    Column("purpose", String(16), nullable=False),
    Column("state", String(16), nullable=False),
    Column("algorithm", String(64), nullable=False),
    Column("wrapped_key", LargeBinary),
    Column("wrapped_by", BigInteger, index=True),
    Column("kek_provider", String(255)),
    Column("kek_key_id", Text),
    Column("kek_version", Text),
    Column("kek_algorithm", String(64)),
    Column("context", ContextText, nullable=False),
    Column("created", String(27), nullable=False),
    Column("published_epoch", BigInteger, nullable=False, index=True),
    Column("activated_at", UtcText),
    Column("rotate_after", UtcText, index=True),
    Column("expires_at", UtcText),
    Column("destroy_after", UtcText),
    Column("messages", BigInteger, nullable=False),
    Column("bytes", BigInteger, nullable=False),
    Column("legacy_version", String(255), unique=True),
    UniqueConstraint("keyring", "version"),
    CheckConstraint("id > 0", name="id_positive"),
    CheckConstraint("version > 0", name="version_positive"),
    CheckConstraint(f"state IN ({_states})", name="state_known"),
    CheckConstraint("(wrapped_key IS NULL) = (state = 'destroyed')", name="wrapped_until_destroyed"),
    CheckConstraint(f"length(wrapped_key) >= {MIN_WRAPPED_BYTES}", name="never_a_bare_key"),
    Index(
        "uq_data_keys_one_active",
        "keyring",
        unique=True,
        sqlite_where=text("state = 'active'"),
        postgresql_where=text("state = 'active'"),
    ),
)

leases: Final = Table(
    "leases",
    metadata,
    Column("name", String(255), primary_key=True),
    Column("owner", String(255), nullable=False),
    Column("token", BigInteger, nullable=False),
    Column("until_ms", BigInteger, nullable=False),
)

nodes: Final = Table(
    "nodes",
    metadata,
    Column("node_id", String(255), primary_key=True),
    Column("seen_epoch", BigInteger, nullable=False),
    Column("until_ms", BigInteger, nullable=False),
)

key_uses: Final = Table(
    "key_uses",
    metadata,
    # Without a foreign key: it may be a pattern, which is no keyring's name.
    Column("keyring", String(255), primary_key=True),
    Column("name", String(255), primary_key=True),
    Column("locator", Text, nullable=False),
)

fields: Final = Table(
    "fields",
    metadata,
    Column("id", String(255), primary_key=True),
    Column("keyring", String(255), nullable=False),
    Column("index_keyring", String(255)),
    Column("locator", Text, nullable=False),
    Column("indexed_version", BigInteger),
)

reencryptions: Final = Table(
    "reencryptions",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("field_id", String(255), nullable=False),
    Column("locator", Text, nullable=False),
    Column("state", String(16), nullable=False),
    Column("batch_rows", Integer, nullable=False),
    Column("dry_run", Boolean, nullable=False),
    Column("target", Text, nullable=False),
    Column("frontier", Text),
    Column("exhausted", Boolean, nullable=False),
    Column("rows_total", BigInteger),
    Column("created_ms", BigInteger, nullable=False),
    Column("updated_ms", BigInteger, nullable=False),
    CheckConstraint(f"state IN ({_job_states})", name="state_known"),
)

reencryption_chunks: Final = Table(
    "reencryption_chunks",
    metadata,
    Column("job_id", String(64), ForeignKey(reencryptions.c.id), primary_key=True),
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("low", Text),
    Column("high", Text),
    Column("cursor", Text),
    Column("done", Boolean, nullable=False),
    Column("owner", String(255)),
    Column("token", BigInteger, nullable=False),
    Column("until_ms", BigInteger, nullable=False),
    Column("read", BigInteger, nullable=False),
    Column("rewritten", BigInteger, nullable=False),
    Column("skipped", BigInteger, nullable=False),
    Column("contended", BigInteger, nullable=False),
    Column("failed", BigInteger, nullable=False),
    Column("failures", FailuresText, nullable=False),
)

audit_entries: Final = Table(
    "audit_entries",
    metadata,
    Column("id", LargeBinary(16), primary_key=True),
    Column("session", String(32), nullable=False, index=True),
    Column("entry", LargeBinary, nullable=False),
    Column("code", LargeBinary, nullable=False),
)

audit_sessions: Final = Table(
    "audit_sessions",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("node", String(255), nullable=False),
    Column("wrapped_key", LargeBinary, nullable=False),
    Column("begun_ms", BigInteger, nullable=False),
    CheckConstraint(f"length(wrapped_key) >= {MIN_WRAPPED_BYTES}", name="never_a_bare_key"),
)

audit_log: Final = Table(
    "audit_log",
    metadata,
    Column("seq", _big, primary_key=True, autoincrement=False),
    Column("line", LargeBinary, nullable=False),
    # Only to search by: the line alone is sealed.
    Column("kind", String(16)),
    Column("entry_id", LargeBinary(16), unique=True),
    Column("at", String(27), index=True),
    Column("action", String(64)),
    Column("keyring", String(255)),
    Column("key_id", BigInteger),
    Index("ix_audit_log_kind_seq", "kind", "seq"),
    Index("ix_audit_log_action_seq", "action", "seq"),
    Index("ix_audit_log_keyring_seq", "keyring", "seq"),
    Index("ix_audit_log_key_id_seq", "key_id", "seq"),
)

audit_state: Final = Table(
    "audit_state",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("size", BigInteger, nullable=False),
    Column("state", LargeBinary, nullable=False),
    Column("code", LargeBinary, nullable=False),
    Column("key_id", BigInteger, nullable=False),
    Column("token", BigInteger, nullable=False),
    Column("checkpoint_size", BigInteger, nullable=False),
    Column("checkpoint_ms", BigInteger, nullable=False),
    Column("exported_size", BigInteger, nullable=False),
    Column("exported_ms", BigInteger, nullable=False),
    Column("rejected", BigInteger, nullable=False),
    CheckConstraint("id = 1", name="one_row"),
)

client_devices: Final = Table(
    "client_devices",
    metadata,
    Column("tenant", String(255), primary_key=True),
    Column("device_id", String(128), primary_key=True),
    Column("owner", String(255)),
    Column("created_at", UtcText, nullable=False),
    Column("revoked_at", UtcText),
)

client_encryption_keys: Final = Table(
    "client_encryption_keys",
    metadata,
    Column("id", String(128), primary_key=True),
    Column("tenant", String(255), nullable=False),
    Column("device_id", String(128), nullable=False),
    Column("owner", String(255), nullable=False),
    Column("kind", String(16), nullable=False),
    Column("public_key", Text, nullable=False),
    Column("wrapped_private_key", LargeBinary),
    Column("wrapped_by", BigInteger, index=True),
    Column("created_at", String(27), nullable=False),
    Column("expires_at", UtcText, index=True),
    Column("app_version", String(128)),
    Column("deprecated", Boolean, nullable=False),
    Column("usage_count", BigInteger, nullable=False),
    Column("last_used", UtcText),
    Column("updated_at", UtcText),
    ForeignKeyConstraint(["tenant", "device_id"], [client_devices.c.tenant, client_devices.c.device_id]),
    CheckConstraint(f"kind IN ({_pair_kinds})", name="kind_known"),
    CheckConstraint("(wrapped_private_key IS NULL) = (wrapped_by IS NULL)", name="wrapped_until_erased"),
    Index("ix_client_encryption_keys_of_device", "tenant", "device_id", "deprecated", "expires_at"),
    Index(
        "uq_client_encryption_keys_one_active",
        "tenant",
        "device_id",
        "kind",
        unique=True,
        sqlite_where=text("deprecated = 0"),
        postgresql_where=text("deprecated = false"),
    ),
)

ready_key_pairs: Final = Table(
    "ready_key_pairs",
    metadata,
    Column("id", String(128), primary_key=True),
    Column("kind", String(16), nullable=False, index=True),
    Column("public_key", Text, nullable=False),
    Column("wrapped_private_key", LargeBinary, nullable=False),
    Column("wrapped_by", BigInteger, nullable=False, index=True),
    Column("created_at", String(27), nullable=False),
    CheckConstraint(f"kind IN ({_pair_kinds})", name="kind_known"),
)

IMMUTABLE_KEY_COLUMNS: Final = ("id", "keyring", "version", "purpose", "algorithm", "created", "context")
IMMUTABLE_KEYRING_COLUMNS: Final = ("name", "purpose", "algorithm", "wrap_keyring", "created_at")
