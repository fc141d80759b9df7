"""Keyrings, data keys, and who works on the store."""

from __future__ import annotations

from typing import Final

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    String,
    Table,
    Text,
    UniqueConstraint,
    text,
)

from keystead.model import DataKeyState
from keystead.stores.tables.columns import BIG, MIN_WRAPPED_BYTES, ContextText, UtcText, metadata

_STATES: Final = ", ".join(f"'{state.value}'" for state in DataKeyState)

MAY_BE_PATTERN: Final = {"sqlite": "instr(keyring, '{') > 0", "postgresql": "strpos(keyring, '{') > 0"}
"""What is true of each pattern, and of few names of keyrings."""

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
    Column("id", BIG, primary_key=True, autoincrement=False),
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
    Column("rotate_after", UtcText),
    Column("expires_at", UtcText),
    Column("destroy_after", UtcText),
    Column("messages", BigInteger, nullable=False),
    Column("bytes", BigInteger, nullable=False),
    Column("legacy_version", String(255), unique=True),
    UniqueConstraint("keyring", "version"),
    CheckConstraint("id > 0", name="id_positive"),
    CheckConstraint("version > 0", name="version_positive"),
    CheckConstraint(f"state IN ({_STATES})", name="state_known"),
    CheckConstraint("(wrapped_key IS NULL) = (state = 'destroyed')", name="wrapped_until_destroyed"),
    CheckConstraint(f"length(wrapped_key) >= {MIN_WRAPPED_BYTES}", name="never_a_bare_key"),
    Index(None, "state", "rotate_after"),
    Index(
        "ix_data_keys_leaving",
        "state",
        "destroy_after",
        "id",
        sqlite_where=text("state = 'pending-destroy'"),
        postgresql_where=text("state = 'pending-destroy'"),
    ),
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

job_runs: Final = Table(
    "job_runs",
    metadata,
    Column("name", String(255), primary_key=True),
    Column("node", String(255), nullable=False),
    Column("error_code", String(255)),
    Column("ended_at", UtcText, nullable=False),
    Column("duration_ms", BigInteger, nullable=False),
)

key_uses: Final = Table(
    "key_uses",
    metadata,
    # Without a foreign key: it may be a pattern, which is no keyring's name.
    Column("keyring", String(255), primary_key=True),
    Column("name", String(255), primary_key=True),
    Column("locator", Text, nullable=False),
    Index(
        "ix_key_uses_patterns",
        "keyring",
        sqlite_where=text(MAY_BE_PATTERN["sqlite"]),
        postgresql_where=text(MAY_BE_PATTERN["postgresql"]),
    ),
)

IMMUTABLE_KEY_COLUMNS: Final = ("id", "keyring", "version", "purpose", "algorithm", "created", "context")
IMMUTABLE_KEYRING_COLUMNS: Final = ("name", "purpose", "algorithm", "wrap_keyring", "created_at")
