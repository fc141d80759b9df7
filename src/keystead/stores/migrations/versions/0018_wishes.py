"""Wishes for re-encryptions, and the workers that wait for them. A release that does not know them works on."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import context, op

revision = "0018"
down_revision = "0017"


def upgrade() -> None:
    """Create the tables."""
    schema = context.config.attributes.get("schema")
    op.create_table(
        "reencryption_wishes",
        sa.Column("id", sa.String(16), nullable=False),
        sa.Column("field_id", sa.String(255), nullable=False),
        sa.Column("kind", sa.String(8), nullable=False),
        sa.Column("asked_by", sa.String(255), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("asked_ms", sa.BigInteger, nullable=False),
        sa.Column("worker", sa.String(255)),
        sa.Column("until_ms", sa.BigInteger, nullable=False),
        sa.Column("taken_ms", sa.BigInteger),
        sa.Column("ended_ms", sa.BigInteger),
        sa.Column("job_id", sa.String(64)),
        sa.Column("plan", sa.Text),
        sa.Column("error_code", sa.String(64)),
        sa.PrimaryKeyConstraint("id", name="pk_reencryption_wishes"),
        sa.CheckConstraint("kind IN ('plan', 'run')", name="ck_reencryption_wishes_kind_known"),
        sa.CheckConstraint(
            "state IN ('open', 'taken', 'done', 'failed', 'cancelled')", name="ck_reencryption_wishes_state_known"
        ),
        schema=schema,
    )
    op.create_index("ix_reencryption_wishes_asked_ms", "reencryption_wishes", ["asked_ms"], schema=schema)
    op.create_index(
        "ix_reencryption_wishes_of_field", "reencryption_wishes", ["field_id", "asked_ms", "id"], schema=schema
    )
    unfinished = sa.text("state IN ('open', 'taken')")
    op.create_index(
        "ix_reencryption_wishes_unfinished",
        "reencryption_wishes",
        ["field_id"],
        unique=True,
        sqlite_where=unfinished,
        postgresql_where=unfinished,
        schema=schema,
    )
    op.create_table(
        "reencryption_listeners",
        sa.Column("field_id", sa.String(255), nullable=False),
        sa.Column("worker", sa.String(255), nullable=False),
        sa.Column("since_ms", sa.BigInteger, nullable=False),
        sa.Column("seen_ms", sa.BigInteger, nullable=False),
        sa.Column("until_ms", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("field_id", "worker", name="pk_reencryption_listeners"),
        schema=schema,
    )
    op.create_index("ix_reencryption_listeners_until_ms", "reencryption_listeners", ["until_ms"], schema=schema)
