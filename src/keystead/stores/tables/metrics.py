"""What was done with the key pairs of devices: each operation, and their numbers by time.

Numbers are kept by minute and by hour; ``start`` is where such a time begins, in seconds since 1970.
"""

from __future__ import annotations

from typing import Final

from sqlalchemy import BigInteger, CheckConstraint, Column, Index, Integer, String, Table, text

from keystead.stores.tables.columns import UtcText, metadata

encryption_metrics: Final = Table(
    "encryption_metrics",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("key_id", String(128)),
    Column("device_id", String(128)),
    Column("operation", String(16), nullable=False),
    Column("status", String(16), nullable=False),
    Column("error_reason", String(64)),
    Column("duration", Integer, nullable=False),
    Column("timestamp", UtcText, nullable=False, index=True),
    CheckConstraint("status IN ('success', 'failure')", name="status_known"),
)

metric_counts: Final = Table(
    "encryption_metric_counts",
    metadata,
    Column("seconds", Integer, primary_key=True, autoincrement=False),
    Column("start", BigInteger, primary_key=True, autoincrement=False),
    Column("operation", String(16), primary_key=True),
    Column("reason", String(64), primary_key=True),
    Column("bucket", Integer, primary_key=True, autoincrement=False),
    Column("count", BigInteger, nullable=False),
    Column("total_us", BigInteger, nullable=False),
    Column("longest_us", BigInteger, nullable=False),
)

key_metric_counts: Final = Table(
    "encryption_key_metric_counts",
    metadata,
    Column("start", BigInteger, primary_key=True, autoincrement=False),
    Column("key_id", String(128), primary_key=True),
    Column("reason", String(64), primary_key=True),
    Column("tenant", String(255), nullable=False),
    Column("device_id", String(128), nullable=False),
    Column("count", BigInteger, nullable=False),
    Index(
        "ix_encryption_key_metric_counts_failed",
        "start",
        "key_id",
        sqlite_where=text("reason <> ''"),
        postgresql_where=text("reason <> ''"),
    ),
)
