"""The audit trail."""

from __future__ import annotations

from typing import Final

from sqlalchemy import BigInteger, CheckConstraint, Column, Index, Integer, LargeBinary, String, Table

from keystead.stores.tables.columns import BIG, MIN_WRAPPED_BYTES, metadata

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
    Column("seq", BIG, primary_key=True, autoincrement=False),
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
