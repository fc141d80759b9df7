"""${message}."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import context, op

revision = ${repr(up_revision)}
down_revision = ${repr(down_revision)}


def upgrade() -> None:
    """Say what changes, and since which revision the schema stays usable (``store_state.usable_from``)."""
    ${upgrades if upgrades else "pass"}
