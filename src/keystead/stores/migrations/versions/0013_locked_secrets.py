"""An index of the secrets that are locked. A release that does not know it works on."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import context, op

revision = "0013"
down_revision = "0012"


def upgrade() -> None:
    """Create the index."""
    is_locked = sa.text("locked_until IS NOT NULL")
    op.create_index(
        "ix_user_credentials_locked",
        "user_credentials",
        ["tenant", "locked_until", "user_id", "kind"],
        schema=context.config.attributes.get("schema"),
        sqlite_where=is_locked,
        postgresql_where=is_locked,
    )
