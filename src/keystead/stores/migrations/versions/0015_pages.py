"""Indexes by which lists are told a page at a time. A release that does not know them works on."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import context, op

revision = "0015"
down_revision = "0014"


def upgrade() -> None:
    """Create them; that of devices by owner takes the place of one that had no order."""
    schema = context.config.attributes.get("schema")
    for name, table, columns in (
        ("ix_api_tokens_created_at", "api_tokens", ["created_at"]),
        ("ix_api_tokens_tenant_created_at", "api_tokens", ["tenant", "created_at"]),
        ("ix_console_sessions_tenant_created_at", "console_sessions", ["tenant", "created_at"]),
        ("ix_client_devices_of_owner_by_id", "client_devices", ["tenant", "owner", "device_id"]),
        (
            "ix_client_encryption_keys_newest_of_device",
            "client_encryption_keys",
            ["tenant", "device_id", "created_at", "id"],
        ),
        ("ix_reencryptions_of_field", "reencryptions", ["field_id", "created_ms", "id"]),
    ):
        op.create_index(name, table, columns, schema=schema)
    op.drop_index("ix_client_devices_of_owner", "client_devices", schema=schema)
    for name, table, columns, sqlite, postgresql in (
        (
            "ix_data_keys_leaving",
            "data_keys",
            ["state", "destroy_after", "id"],
            "state = 'pending-destroy'",
            "state = 'pending-destroy'",
        ),
        (
            "ix_key_uses_patterns",
            "key_uses",
            ["keyring"],
            "instr(keyring, '{') > 0",
            "strpos(keyring, '{') > 0",
        ),
    ):
        op.create_index(
            name, table, columns, schema=schema, sqlite_where=sa.text(sqlite), postgresql_where=sa.text(postgresql)
        )
