"""Encrypted fields and their re-encryption."""

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
    String,
    Table,
    Text,
    text,
)

from keystead.ports import ReencryptionState, WishKind, WishState
from keystead.stores.tables.columns import FailuresText, metadata

_STATES: Final = ", ".join(f"'{state.value}'" for state in ReencryptionState)
_KINDS: Final = ", ".join(f"'{kind.value}'" for kind in WishKind)
_WISHES: Final = ", ".join(f"'{state.value}'" for state in WishState)
_UNFINISHED: Final = text("state IN ('open', 'taken')")

fields: Final = Table(
    "fields",
    metadata,
    Column("id", String(255), primary_key=True),
    Column("keyring", String(255), nullable=False),
    Column("index_keyring", String(255)),
    Column("locator", Text, nullable=False),
    Column("indexed_version", BigInteger),
    Column("record", String(255)),
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
    Column("created_ms", BigInteger, nullable=False, index=True),
    Column("updated_ms", BigInteger, nullable=False),
    CheckConstraint(f"state IN ({_STATES})", name="state_known"),
    Index("ix_reencryptions_of_field", "field_id", "created_ms", "id"),
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
    Column("erased", BigInteger, nullable=False, server_default="0"),
    Column("failures", FailuresText, nullable=False),
    Index(
        "ix_reencryption_chunks_open",
        "job_id",
        "until_ms",
        sqlite_where=text("done IS 0"),
        postgresql_where=text("done IS false"),
    ),
    Index(
        "ix_reencryption_chunks_failed",
        "job_id",
        "failed",
        sqlite_where=text("failed > 0"),
        postgresql_where=text("failed > 0"),
    ),
)

reencryption_wishes: Final = Table(
    "reencryption_wishes",
    metadata,
    Column("id", String(16), primary_key=True),
    Column("field_id", String(255), nullable=False),
    Column("kind", String(8), nullable=False),
    Column("asked_by", String(255), nullable=False),
    Column("state", String(16), nullable=False),
    Column("asked_ms", BigInteger, nullable=False, index=True),
    Column("worker", String(255)),
    Column("until_ms", BigInteger, nullable=False),
    Column("taken_ms", BigInteger),
    Column("ended_ms", BigInteger),
    Column("job_id", String(64)),
    Column("plan", Text),
    Column("error_code", String(64)),
    CheckConstraint(f"kind IN ({_KINDS})", name="kind_known"),
    CheckConstraint(f"state IN ({_WISHES})", name="state_known"),
    Index("ix_reencryption_wishes_of_field", "field_id", "asked_ms", "id"),
    Index(
        "ix_reencryption_wishes_unfinished",
        "field_id",
        unique=True,
        sqlite_where=_UNFINISHED,
        postgresql_where=_UNFINISHED,
    ),
)

reencryption_listeners: Final = Table(
    "reencryption_listeners",
    metadata,
    Column("field_id", String(255), primary_key=True),
    Column("worker", String(255), primary_key=True),
    Column("since_ms", BigInteger, nullable=False),
    Column("seen_ms", BigInteger, nullable=False),
    Column("until_ms", BigInteger, nullable=False, index=True),
)
