"""Sessions of people at the console. A release that does not know them works on."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import context, op

revision = "0012"
down_revision = "0011"


def upgrade() -> None:
    """Create the table."""
    schema = context.config.attributes.get("schema")
    op.create_table(
        "console_sessions",
        sa.Column("id", sa.String(16), nullable=False),
        sa.Column("subject", sa.String(255), nullable=False),
        sa.Column("tenant", sa.String(255), nullable=False),
        sa.Column("scopes", sa.Text, nullable=False),
        sa.Column("origin", sa.Text, nullable=False),
        sa.Column("token_id", sa.String(16)),
        sa.Column("is_audited_each", sa.Boolean, nullable=False),
        sa.Column("created_at", sa.String(27), nullable=False),
        sa.Column("expires_at", sa.String(27), nullable=False),
        sa.Column("key_id", sa.BigInteger, nullable=False),
        sa.Column("code", sa.LargeBinary(32), nullable=False),
        sa.Column("seen_at", sa.String(27), nullable=False),
        sa.Column("ended_at", sa.String(27)),
        sa.PrimaryKeyConstraint("id", name="pk_console_sessions"),
        sa.CheckConstraint("length(code) = 32", name="ck_console_sessions_code_length"),
        schema=schema,
    )
    for column in ("created_at", "expires_at"):
        op.create_index(f"ix_console_sessions_{column}", "console_sessions", [column], schema=schema)
