"""Devices, their key pairs, and pairs that are ready for one. A release that knows 0001 alone works on."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import context, op

revision = "0005"
down_revision = "0004"

KINDS = "kind IN ('RSA_2048', 'RSA_3072', 'X25519')"


def upgrade() -> None:
    """Create the tables."""
    schema = context.config.attributes.get("schema")
    op.create_table(
        "client_devices",
        sa.Column("tenant", sa.String(255), nullable=False),
        sa.Column("device_id", sa.String(128), nullable=False),
        sa.Column("owner", sa.String(255)),
        sa.Column("created_at", sa.String(27), nullable=False),
        sa.Column("revoked_at", sa.String(27)),
        sa.PrimaryKeyConstraint("tenant", "device_id", name="pk_client_devices"),
        schema=schema,
    )
    _create_client_keys(schema)
    op.create_table(
        "ready_key_pairs",
        sa.Column("id", sa.String(128), nullable=False),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("public_key", sa.Text, nullable=False),
        sa.Column("wrapped_private_key", sa.LargeBinary, nullable=False),
        sa.Column("wrapped_by", sa.BigInteger, nullable=False),
        sa.Column("created_at", sa.String(27), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_ready_key_pairs"),
        sa.CheckConstraint(KINDS, name="ck_ready_key_pairs_kind_known"),
        schema=schema,
    )
    for column in ("kind", "wrapped_by"):
        op.create_index(f"ix_ready_key_pairs_{column}", "ready_key_pairs", [column], schema=schema)


def _create_client_keys(schema: str | None) -> None:
    table = "client_encryption_keys"
    devices = f"{schema}.client_devices" if schema else "client_devices"
    op.create_table(
        table,
        sa.Column("id", sa.String(128), nullable=False),
        sa.Column("tenant", sa.String(255), nullable=False),
        sa.Column("device_id", sa.String(128), nullable=False),
        sa.Column("owner", sa.String(255), nullable=False),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("public_key", sa.Text, nullable=False),
        sa.Column("wrapped_private_key", sa.LargeBinary),
        sa.Column("wrapped_by", sa.BigInteger),
        sa.Column("created_at", sa.String(27), nullable=False),
        sa.Column("expires_at", sa.String(27)),
        sa.Column("app_version", sa.String(128)),
        sa.Column("deprecated", sa.Boolean, nullable=False),
        sa.Column("usage_count", sa.BigInteger, nullable=False),
        sa.Column("last_used", sa.String(27)),
        sa.Column("updated_at", sa.String(27)),
        sa.PrimaryKeyConstraint("id", name=f"pk_{table}"),
        sa.ForeignKeyConstraint(
            ["tenant", "device_id"], [f"{devices}.tenant", f"{devices}.device_id"], name=f"fk_{table}_tenant"
        ),
        sa.CheckConstraint(KINDS, name=f"ck_{table}_kind_known"),
        sa.CheckConstraint(
            "(wrapped_private_key IS NULL) = (wrapped_by IS NULL)", name=f"ck_{table}_wrapped_until_erased"
        ),
        schema=schema,
    )
    for column in ("wrapped_by", "expires_at"):
        op.create_index(f"ix_{table}_{column}", table, [column], schema=schema)
    of_device = ["tenant", "device_id", "deprecated", "expires_at"]
    op.create_index(f"ix_{table}_of_device", table, of_device, schema=schema)
    op.create_index(
        f"uq_{table}_one_active",
        table,
        ["tenant", "device_id", "kind"],
        unique=True,
        sqlite_where=sa.text("deprecated = 0"),
        postgresql_where=sa.text("deprecated = false"),
        schema=schema,
    )
