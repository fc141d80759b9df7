"""Transit keys. A release that knows 0001 alone works on until there is one."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import context, op

revision = "0010"
down_revision = "0009"

_FLAGS = ("derived", "convergent", "exportable", "allow_plaintext_backup", "deletion_allowed")
_VERSIONS = ("min_available", "min_decryption", "min_encryption")


def upgrade() -> None:
    """Create the tables."""
    schema = context.config.attributes.get("schema")
    keyrings = "keyrings.name" if schema is None else f"{schema}.keyrings.name"
    op.create_table(
        "transit_keys",
        sa.Column("keyring", sa.String(255), nullable=False),
        sa.Column("tenant", sa.String(255), nullable=False),
        sa.Column("name", sa.String(255), nullable=False),
        sa.Column("type", sa.String(32), nullable=False),
        sa.Column("created_at", sa.String(27), nullable=False),
        *(sa.Column(name, sa.Boolean, nullable=False) for name in _FLAGS),
        *(sa.Column(name, sa.BigInteger, nullable=False) for name in _VERSIONS),
        sa.Column("auto_rotate_s", sa.BigInteger, nullable=False),
        sa.Column("imported", sa.Boolean, nullable=False),
        sa.Column("allow_rotation", sa.Boolean, nullable=False),
        sa.Column("key_size", sa.Integer, nullable=False),
        sa.Column("soft_deleted", sa.Boolean, nullable=False),
        sa.PrimaryKeyConstraint("keyring", name="pk_transit_keys"),
        sa.ForeignKeyConstraint(["keyring"], [keyrings], name="fk_transit_keys_keyring"),
        sa.UniqueConstraint("tenant", "name", name="uq_transit_keys_tenant_name"),
        sa.CheckConstraint("min_available >= 0", name="ck_transit_keys_min_available_not_negative"),
        sa.CheckConstraint(
            "min_decryption >= min_available AND min_decryption >= 1", name="ck_transit_keys_min_decryption_available"
        ),
        sa.CheckConstraint(
            "min_encryption = 0 OR min_encryption >= min_decryption", name="ck_transit_keys_min_encryption_decrypts"
        ),
        schema=schema,
    )
    op.create_table(
        "transit_settings",
        sa.Column("tenant", sa.String(255), nullable=False),
        sa.Column("disable_upsert", sa.Boolean, nullable=False),
        sa.PrimaryKeyConstraint("tenant", name="pk_transit_settings"),
        schema=schema,
    )
