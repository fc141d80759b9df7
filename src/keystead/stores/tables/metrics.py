"""What was done with the key pairs of devices: each operation, and their numbers by time.

A row of numbers is for ``seconds`` from ``start`` on, which is in seconds since 1970 and a multiple of them; the same
operation is counted in a row of each length. Those of operations are by the minute, the hour and the half day, those of
keys and devices by the hour, three hours and the half day, and failures of keys by the hour. Those are integers of 32
bits, which PostgreSQL sums faster than longer ones.
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
    sqlite_with_rowid=False,
)

key_metric_counts: Final = Table(
    "encryption_key_metric_counts",
    metadata,
    Column("seconds", Integer, primary_key=True, autoincrement=False),
    Column("start", BigInteger, primary_key=True, autoincrement=False),
    Column("key_id", String(128), primary_key=True),
    Column("total", Integer, nullable=False),
    Column("failures", Integer, nullable=False),
    Index(
        "ix_encryption_key_metric_counts_failed",
        "seconds",
        "start",
        "key_id",
        "total",
        "failures",
        sqlite_where=text("failures > 0"),
        postgresql_where=text("failures > 0"),
    ),
    sqlite_with_rowid=False,
)

key_failure_counts: Final = Table(
    "encryption_key_failure_counts",
    metadata,
    Column("key_id", String(128), primary_key=True),
    Column("start", BigInteger, primary_key=True, autoincrement=False, index=True),
    Column("reason", String(64), primary_key=True),
    Column("count", Integer, nullable=False),
    sqlite_with_rowid=False,
)

device_metric_counts: Final = Table(
    "encryption_device_metric_counts",
    metadata,
    Column("seconds", Integer, primary_key=True, autoincrement=False),
    Column("start", BigInteger, primary_key=True, autoincrement=False),
    # By a number of 63 bits, from a hash of the two that follow: numbers are grouped in half the time.
    Column("device", BigInteger, primary_key=True, autoincrement=False),
    Column("tenant", String(255), nullable=False),
    Column("device_id", String(128), nullable=False),
    Column("count", Integer, nullable=False),
    sqlite_with_rowid=False,
)
