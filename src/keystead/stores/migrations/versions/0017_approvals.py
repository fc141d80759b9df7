"""Approvals of a second person, and the rules that hold in a store. A release that does not know them works on."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import context, op

revision = "0017"
down_revision = "0016"


def upgrade() -> None:
    """Create the tables."""
    schema = context.config.attributes.get("schema")
    op.create_table(
        "approvals",
        sa.Column("id", sa.String(16), nullable=False),
        sa.Column("action", sa.String(32), nullable=False),
        sa.Column("target", sa.Text, nullable=False),
        sa.Column("details", sa.Text, nullable=False),
        sa.Column("tenant", sa.String(255), nullable=False),
        sa.Column("asked_by", sa.String(255), nullable=False),
        sa.Column("created_at", sa.String(27), nullable=False),
        sa.Column("expires_at", sa.String(27), nullable=False),
        sa.Column("key_id", sa.BigInteger, nullable=False),
        sa.Column("code", sa.LargeBinary(32), nullable=False),
        sa.Column("verdict", sa.String(8), nullable=False),
        sa.Column("decided_by", sa.String(255), nullable=False),
        sa.Column("decided_at", sa.String(27), nullable=False),
        sa.Column("done_at", sa.String(27)),
        sa.PrimaryKeyConstraint("id", name="pk_approvals"),
        sa.CheckConstraint("length(code) = 32", name="ck_approvals_code_length"),
        schema=schema,
    )
    for columns in (["created_at"], ["expires_at"], ["tenant", "created_at"]):
        op.create_index(f"ix_approvals_{'_'.join(columns)}", "approvals", columns, schema=schema)
    op.create_table(
        "store_rules",
        sa.Column("name", sa.String(32), nullable=False),
        sa.Column("since", sa.String(27), nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_store_rules"),
        schema=schema,
    )
