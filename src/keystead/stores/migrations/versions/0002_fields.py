"""Registered fields, and the jobs that re-encrypt their columns. A release that knows 0001 alone works on."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import context, op

revision = "0002"
down_revision = "0001"

JOB_STATES = "'running', 'paused', 'done', 'cancelled'"


def upgrade() -> None:
    """Create the tables."""
    schema = context.config.attributes.get("schema")
    op.create_table(
        "fields",
        sa.Column("id", sa.String(255), nullable=False),
        sa.Column("keyring", sa.String(255), nullable=False),
        sa.Column("index_keyring", sa.String(255)),
        sa.Column("locator", sa.Text, nullable=False),
        sa.Column("indexed_version", sa.BigInteger),
        sa.PrimaryKeyConstraint("id", name="pk_fields"),
        schema=schema,
    )
    op.create_table(
        "reencryptions",
        sa.Column("id", sa.String(64), nullable=False),
        sa.Column("field_id", sa.String(255), nullable=False),
        sa.Column("locator", sa.Text, nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("batch_rows", sa.Integer, nullable=False),
        sa.Column("dry_run", sa.Boolean, nullable=False),
        sa.Column("target", sa.Text, nullable=False),
        sa.Column("frontier", sa.Text),
        sa.Column("exhausted", sa.Boolean, nullable=False),
        sa.Column("rows_total", sa.BigInteger),
        sa.Column("created_ms", sa.BigInteger, nullable=False),
        sa.Column("updated_ms", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_reencryptions"),
        sa.CheckConstraint(f"state IN ({JOB_STATES})", name="ck_reencryptions_state_known"),
        schema=schema,
    )
    op.create_table(
        "reencryption_chunks",
        sa.Column("job_id", sa.String(64), nullable=False),
        sa.Column("number", sa.Integer, autoincrement=False, nullable=False),
        sa.Column("low", sa.Text),
        sa.Column("high", sa.Text),
        sa.Column("cursor", sa.Text),
        sa.Column("done", sa.Boolean, nullable=False),
        sa.Column("owner", sa.String(255)),
        sa.Column("token", sa.BigInteger, nullable=False),
        sa.Column("until_ms", sa.BigInteger, nullable=False),
        sa.Column("read", sa.BigInteger, nullable=False),
        sa.Column("rewritten", sa.BigInteger, nullable=False),
        sa.Column("skipped", sa.BigInteger, nullable=False),
        sa.Column("contended", sa.BigInteger, nullable=False),
        sa.Column("failed", sa.BigInteger, nullable=False),
        sa.Column("failures", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("job_id", "number", name="pk_reencryption_chunks"),
        sa.ForeignKeyConstraint(
            ["job_id"],
            [f"{schema}.reencryptions.id" if schema else "reencryptions.id"],
            name="fk_reencryption_chunks_job_id",
        ),
        schema=schema,
    )
