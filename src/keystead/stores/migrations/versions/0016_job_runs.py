"""How each job ended last, and where. A release that does not know it works on."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import context, op

revision = "0016"
down_revision = "0015"


def upgrade() -> None:
    """Create the table."""
    op.create_table(
        "job_runs",
        sa.Column("name", sa.String(255), nullable=False),
        sa.Column("node", sa.String(255), nullable=False),
        sa.Column("error_code", sa.String(255)),
        sa.Column("ended_at", sa.String(27), nullable=False),
        sa.Column("duration_ms", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_job_runs"),
        schema=context.config.attributes.get("schema"),
    )
