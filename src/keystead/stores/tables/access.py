"""Who may call."""

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
    false,
)

from keystead.stores.tables.columns import UtcText, metadata

api_tokens: Final = Table(
    "api_tokens",
    metadata,
    Column("id", String(16), primary_key=True),
    Column("subject", String(255), nullable=False),
    Column("tenant", String(255), nullable=False),
    Column("scopes", Text, nullable=False),
    Column("label", String(255), nullable=False),
    Column("created_at", String(27), nullable=False, index=True),
    Column("expires_at", String(27)),
    Column("key_id", BigInteger, nullable=False, index=True),
    Column("code", LargeBinary(32), nullable=False),
    Column("revoked_at", UtcText),
    Column("role_id", String(36), index=True),
    Column("ttl_s", Integer),
    Column("ends_by", String(27)),
    Column("uses", Integer),
    Column("used", Integer, nullable=False, server_default="0"),
    Column("is_audited_each", Boolean(create_constraint=False), nullable=False, server_default=false()),
    CheckConstraint("length(code) = 32", name="code_length"),
    Index(None, "tenant", "created_at"),
)

access_roles: Final = Table(
    "access_roles",
    metadata,
    Column("id", String(36), primary_key=True),
    Column("kind", String(8), nullable=False),
    Column("tenant", String(255), nullable=False),
    Column("name", String(64), nullable=False),
    Column("scopes", Text, nullable=False),
    Column("rules", Text, nullable=False),
    Column("created_at", String(27), nullable=False),
    Column("key_id", BigInteger, nullable=False, index=True),
    Column("code", LargeBinary(32), nullable=False),
    UniqueConstraint("kind", "tenant", "name"),
    CheckConstraint("length(code) = 32", name="code_length"),
)
access_secret_ids: Final = Table(
    "access_secret_ids",
    metadata,
    Column("id", String(16), primary_key=True),
    Column("role_id", ForeignKey(access_roles.c.id), nullable=False, index=True),
    Column("created_at", String(27), nullable=False),
    Column("expires_at", String(27), nullable=False),
    Column("uses", Integer, nullable=False),
    Column("key_id", BigInteger, nullable=False, index=True),
    Column("code", LargeBinary(32), nullable=False),
    Column("used", Integer, nullable=False, server_default="0"),
    CheckConstraint("length(code) = 32", name="code_length"),
    CheckConstraint("used <= uses", name="used"),
)

console_sessions: Final = Table(
    "console_sessions",
    metadata,
    Column("id", String(16), primary_key=True),
    Column("subject", String(255), nullable=False),
    Column("tenant", String(255), nullable=False),
    Column("scopes", Text, nullable=False),
    Column("origin", Text, nullable=False),
    Column("token_id", String(16)),
    Column("is_audited_each", Boolean(create_constraint=False), nullable=False),
    Column("created_at", String(27), nullable=False, index=True),
    Column("expires_at", String(27), nullable=False, index=True),
    Column("key_id", BigInteger, nullable=False),
    Column("code", LargeBinary(32), nullable=False),
    Column("seen_at", UtcText, nullable=False),
    Column("ended_at", UtcText),
    CheckConstraint("length(code) = 32", name="code_length"),
    Index(None, "tenant", "created_at"),
)

approvals: Final = Table(
    "approvals",
    metadata,
    Column("id", String(16), primary_key=True),
    Column("action", String(32), nullable=False),
    Column("target", Text, nullable=False),
    Column("details", Text, nullable=False),
    Column("tenant", String(255), nullable=False),
    Column("asked_by", String(255), nullable=False),
    Column("created_at", String(27), nullable=False, index=True),
    Column("expires_at", String(27), nullable=False, index=True),
    Column("key_id", BigInteger, nullable=False),
    Column("code", LargeBinary(32), nullable=False),
    Column("verdict", String(8), nullable=False),
    Column("decided_by", String(255), nullable=False),
    Column("decided_at", String(27), nullable=False),
    Column("done_at", UtcText),
    CheckConstraint("length(code) = 32", name="code_length"),
    Index(None, "tenant", "created_at"),
)
store_rules: Final = Table(
    "store_rules",
    metadata,
    Column("name", String(32), primary_key=True),
    Column("since", UtcText, nullable=False),
)
