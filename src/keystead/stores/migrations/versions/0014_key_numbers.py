"""Indexes by which data keys are counted, and what is wrong with re-encryptions is found. An older release works on."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import context, op

revision = "0014"
down_revision = "0013"


def upgrade() -> None:
    """Create them; the one by state takes the place of that by date alone, which only active keys were asked of."""
    schema = context.config.attributes.get("schema")
    op.create_index("ix_data_keys_state_rotate_after", "data_keys", ["state", "rotate_after"], schema=schema)
    op.drop_index("ix_data_keys_rotate_after", "data_keys", schema=schema)
    op.create_index("ix_reencryptions_created_ms", "reencryptions", ["created_ms"], schema=schema)
    for name, column, sqlite, postgresql in (
        ("open", "until_ms", "done IS 0", "done IS false"),
        ("failed", "failed", "failed > 0", "failed > 0"),
    ):
        op.create_index(
            f"ix_reencryption_chunks_{name}",
            "reencryption_chunks",
            ["job_id", column],
            schema=schema,
            sqlite_where=sa.text(sqlite),
            postgresql_where=sa.text(postgresql),
        )
