"""What fields of subjects need: whose rows a token index names, and how many rows are of forgotten subjects.

A release that knows 0001 alone works on.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import context, op

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    """Add the columns."""
    schema = context.config.attributes.get("schema")
    op.add_column("fields", sa.Column("record", sa.String(255)), schema=schema)
    erased = sa.Column("erased", sa.BigInteger, nullable=False, server_default="0")
    op.add_column("reencryption_chunks", erased, schema=schema)
