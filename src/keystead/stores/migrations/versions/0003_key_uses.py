"""A key use may name a pattern of keyrings, which no foreign key finds. A release that knows 0001 alone works on."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import context, op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Take the foreign key away; SQLite makes the table anew for it."""
    schema = context.config.attributes.get("schema")
    if op.get_context().dialect.name == "postgresql":
        op.drop_constraint("fk_key_uses_keyring", "key_uses", type_="foreignkey", schema=schema)
        return
    op.create_table(
        "key_uses_anew",
        sa.Column("keyring", sa.String(255), nullable=False),
        sa.Column("name", sa.String(255), nullable=False),
        sa.Column("locator", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("keyring", "name", name="pk_key_uses"),
    )
    op.execute("INSERT INTO key_uses_anew (keyring, name, locator) SELECT keyring, name, locator FROM key_uses")
    op.drop_table("key_uses")
    op.rename_table("key_uses_anew", "key_uses")
