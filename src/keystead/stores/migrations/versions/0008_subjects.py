"""Subjects and the mark of the erasure log. A release that knows 0001 alone works on until there is a subject."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import context, op

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    """Create the tables."""
    schema = context.config.attributes.get("schema")
    op.create_table(
        "subjects",
        sa.Column("id", sa.LargeBinary(32), nullable=False),
        sa.Column("keyring", sa.String(255), nullable=False),
        sa.Column("created_at", sa.String(27), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_subjects"),
        sa.UniqueConstraint("keyring", name="uq_subjects_keyring"),
        sa.CheckConstraint("length(id) = 32", name="ck_subjects_id_length"),
        schema=schema,
    )
    op.create_table(
        "erasure_state",
        sa.Column("id", sa.Integer, autoincrement=False, nullable=False),
        sa.Column("count", sa.BigInteger, nullable=False),
        sa.Column("head", sa.LargeBinary(32), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_erasure_state"),
        sa.CheckConstraint("id = 1", name="ck_erasure_state_one_row"),
        sa.CheckConstraint("length(head) = 32", name="ck_erasure_state_head_length"),
        schema=schema,
    )
