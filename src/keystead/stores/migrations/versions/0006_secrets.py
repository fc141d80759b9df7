"""Secrets of users, spent ciphertexts, and metrics. A release that knows 0001 alone works on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from alembic import context, op

revision = "0006"
down_revision = "0005"

KEYS = "client_encryption_keys"
FAILED = "ix_encryption_key_metric_counts_failed"


def upgrade() -> None:
    """Create the tables."""
    schema = context.config.attributes.get("schema")
    op.create_index("ix_client_devices_of_owner", "client_devices", ["tenant", "owner"], schema=schema)
    op.create_index(f"ix_{KEYS}_of_owner", KEYS, ["tenant", "owner", "created_at"], schema=schema)
    op.create_index(f"ix_{KEYS}_created_at", KEYS, ["created_at"], schema=schema)
    _create_credentials(schema)
    op.create_table(
        "spent_ciphertexts",
        sa.Column("key_id", sa.String(128), nullable=False),
        sa.Column("digest", sa.LargeBinary(32), nullable=False),
        sa.Column("until", sa.String(27), nullable=False),
        sa.PrimaryKeyConstraint("key_id", "digest", name="pk_spent_ciphertexts"),
        schema=schema,
    )
    op.create_index("ix_spent_ciphertexts_until", "spent_ciphertexts", ["until"], schema=schema)
    _create_metrics(schema)


def _create_credentials(schema: str | None) -> None:
    table = "user_credentials"
    op.create_table(
        table,
        sa.Column("tenant", sa.String(255), nullable=False),
        sa.Column("user_id", sa.String(255), nullable=False),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("hash", sa.Text),
        sa.Column("pepper_id", sa.BigInteger),
        sa.Column("counted", sa.BigInteger, nullable=False),
        sa.Column("cleared", sa.BigInteger, nullable=False),
        sa.Column("locked_until", sa.String(27)),
        sa.Column("verified_at", sa.String(27)),
        sa.Column("set_at", sa.String(27)),
        sa.PrimaryKeyConstraint("tenant", "user_id", "kind", name=f"pk_{table}"),
        sa.CheckConstraint("kind IN ('passcode', 'transaction_pin')", name=f"ck_{table}_kind_known"),
        sa.CheckConstraint("(hash IS NULL) = (pepper_id IS NULL)", name=f"ck_{table}_hash_has_pepper"),
        sa.CheckConstraint("0 <= cleared AND cleared <= counted", name=f"ck_{table}_cleared_were_counted"),
        schema=schema,
    )
    op.create_index(f"ix_{table}_pepper_id", table, ["pepper_id"], schema=schema)


def _create_metrics(schema: str | None) -> None:
    op.create_table(
        "encryption_metrics",
        sa.Column("id", sa.String(32), nullable=False),
        sa.Column("key_id", sa.String(128)),
        sa.Column("device_id", sa.String(128)),
        sa.Column("operation", sa.String(16), nullable=False),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("error_reason", sa.String(64)),
        sa.Column("duration", sa.Integer, nullable=False),
        sa.Column("timestamp", sa.String(27), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_encryption_metrics"),
        sa.CheckConstraint("status IN ('success', 'failure')", name="ck_encryption_metrics_status_known"),
        schema=schema,
    )
    op.create_index("ix_encryption_metrics_timestamp", "encryption_metrics", ["timestamp"], schema=schema)
    _create_counts(
        "encryption_metric_counts",
        sa.Column("seconds", sa.Integer, nullable=False),
        sa.Column("start", sa.BigInteger, nullable=False),
        sa.Column("operation", sa.String(16), nullable=False),
        sa.Column("reason", sa.String(64), nullable=False),
        sa.Column("bucket", sa.Integer, nullable=False),
        numbers=("count", "total_us", "longest_us"),
        kind=sa.BigInteger,
        schema=schema,
    )
    keys = "encryption_key_metric_counts"
    _create_counts(
        keys,
        sa.Column("seconds", sa.Integer, nullable=False),
        sa.Column("start", sa.BigInteger, nullable=False),
        sa.Column("key_id", sa.String(128), nullable=False),
        numbers=("total", "failures"),
        schema=schema,
    )
    failed = sa.text("failures > 0")
    columns = ["seconds", "start", "key_id", "total", "failures"]
    op.create_index(FAILED, keys, columns, sqlite_where=failed, postgresql_where=failed, schema=schema)
    failures = "encryption_key_failure_counts"
    _create_counts(
        failures,
        sa.Column("key_id", sa.String(128), nullable=False),
        sa.Column("start", sa.BigInteger, nullable=False),
        sa.Column("reason", sa.String(64), nullable=False),
        schema=schema,
    )
    op.create_index(f"ix_{failures}_start", failures, ["start"], schema=schema)
    _create_counts(
        "encryption_device_metric_counts",
        sa.Column("seconds", sa.Integer, nullable=False),
        sa.Column("start", sa.BigInteger, nullable=False),
        sa.Column("device", sa.BigInteger, nullable=False),
        columns=(
            sa.Column("tenant", sa.String(255), nullable=False),
            sa.Column("device_id", sa.String(128), nullable=False),
        ),
        schema=schema,
    )


def _create_counts(
    table: str,
    *key: sa.Column[Any],
    columns: Sequence[sa.Column[Any]] = (),
    numbers: Sequence[str] = ("count",),
    kind: type[sa.Integer] = sa.Integer,
    schema: str | None,
) -> None:
    op.create_table(
        table,
        *key,
        *columns,
        *(sa.Column(name, kind, nullable=False) for name in numbers),
        sa.PrimaryKeyConstraint(*(column.name for column in key), name=f"pk_{table}"),
        sqlite_with_rowid=False,
        schema=schema,
    )
