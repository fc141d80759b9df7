"""Roles, their secret ids, and what tokens have that were got by one. A release that knows 0001 alone works on."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import context, op

revision = "0011"
down_revision = "0010"


def upgrade() -> None:
    """Create the tables and add the columns."""
    schema = context.config.attributes.get("schema")
    for column in (
        sa.Column("role_id", sa.String(36)),
        sa.Column("ttl_s", sa.Integer),
        sa.Column("ends_by", sa.String(27)),
        sa.Column("uses", sa.Integer),
        sa.Column("used", sa.Integer, nullable=False, server_default="0"),
        sa.Column("is_audited_each", sa.Boolean, nullable=False, server_default=sa.false()),
    ):
        op.add_column("api_tokens", column, schema=schema)
    op.create_index("ix_api_tokens_role_id", "api_tokens", ["role_id"], schema=schema)
    op.create_table(
        "access_roles",
        sa.Column("id", sa.String(36), nullable=False),
        sa.Column("kind", sa.String(8), nullable=False),
        sa.Column("tenant", sa.String(255), nullable=False),
        sa.Column("name", sa.String(64), nullable=False),
        sa.Column("scopes", sa.Text, nullable=False),
        sa.Column("rules", sa.Text, nullable=False),
        sa.Column("created_at", sa.String(27), nullable=False),
        sa.Column("key_id", sa.BigInteger, nullable=False),
        sa.Column("code", sa.LargeBinary(32), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_access_roles"),
        sa.UniqueConstraint("kind", "tenant", "name", name="uq_access_roles_kind_tenant_name"),
        sa.CheckConstraint("length(code) = 32", name="ck_access_roles_code_length"),
        schema=schema,
    )
    op.create_index("ix_access_roles_key_id", "access_roles", ["key_id"], schema=schema)
    parent = "access_roles.id" if schema is None else f"{schema}.access_roles.id"
    op.create_table(
        "access_secret_ids",
        sa.Column("id", sa.String(16), nullable=False),
        sa.Column("role_id", sa.String(36), nullable=False),
        sa.Column("created_at", sa.String(27), nullable=False),
        sa.Column("expires_at", sa.String(27), nullable=False),
        sa.Column("uses", sa.Integer, nullable=False),
        sa.Column("key_id", sa.BigInteger, nullable=False),
        sa.Column("code", sa.LargeBinary(32), nullable=False),
        sa.Column("used", sa.Integer, nullable=False, server_default="0"),
        sa.PrimaryKeyConstraint("id", name="pk_access_secret_ids"),
        sa.ForeignKeyConstraint(["role_id"], [parent], name="fk_access_secret_ids_role_id"),
        sa.CheckConstraint("length(code) = 32", name="ck_access_secret_ids_code_length"),
        sa.CheckConstraint("used <= uses", name="ck_access_secret_ids_used"),
        schema=schema,
    )
    op.create_index("ix_access_secret_ids_role_id", "access_secret_ids", ["role_id"], schema=schema)
    op.create_index("ix_access_secret_ids_key_id", "access_secret_ids", ["key_id"], schema=schema)
