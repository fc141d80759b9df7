"""Devices, their key pairs, and the secrets of users."""

from __future__ import annotations

from typing import Final

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    ForeignKeyConstraint,
    Index,
    LargeBinary,
    String,
    Table,
    Text,
    text,
)

from keystead.ports import PairKind, SecretKind
from keystead.stores.tables.columns import UtcText, metadata

_KINDS: Final = ", ".join(f"'{kind.value}'" for kind in PairKind)
_SECRETS: Final = ", ".join(f"'{kind.value}'" for kind in SecretKind)

client_devices: Final = Table(
    "client_devices",
    metadata,
    Column("tenant", String(255), primary_key=True),
    Column("device_id", String(128), primary_key=True),
    Column("owner", String(255)),
    Column("created_at", UtcText, nullable=False),
    Column("revoked_at", UtcText),
    Index("ix_client_devices_of_owner_by_id", "tenant", "owner", "device_id"),
)

client_encryption_keys: Final = Table(
    "client_encryption_keys",
    metadata,
    Column("id", String(128), primary_key=True),
    Column("tenant", String(255), nullable=False),
    Column("device_id", String(128), nullable=False),
    Column("owner", String(255), nullable=False),
    Column("kind", String(16), nullable=False),
    Column("public_key", Text, nullable=False),
    Column("wrapped_private_key", LargeBinary),
    Column("wrapped_by", BigInteger, index=True),
    Column("created_at", String(27), nullable=False),
    Column("expires_at", UtcText, index=True),
    Column("app_version", String(128)),
    Column("deprecated", Boolean, nullable=False),
    Column("usage_count", BigInteger, nullable=False),
    Column("last_used", UtcText),
    Column("updated_at", UtcText),
    ForeignKeyConstraint(["tenant", "device_id"], [client_devices.c.tenant, client_devices.c.device_id]),
    CheckConstraint(f"kind IN ({_KINDS})", name="kind_known"),
    CheckConstraint("(wrapped_private_key IS NULL) = (wrapped_by IS NULL)", name="wrapped_until_erased"),
    Index("ix_client_encryption_keys_of_owner", "tenant", "owner", "created_at"),
    Index("ix_client_encryption_keys_created_at", "created_at"),
    Index("ix_client_encryption_keys_newest_of_device", "tenant", "device_id", "created_at", "id"),
    Index("ix_client_encryption_keys_of_device", "tenant", "device_id", "deprecated", "expires_at"),
    Index(
        "uq_client_encryption_keys_one_active",
        "tenant",
        "device_id",
        "kind",
        unique=True,
        sqlite_where=text("deprecated = 0"),
        postgresql_where=text("deprecated = false"),
    ),
)

ready_key_pairs: Final = Table(
    "ready_key_pairs",
    metadata,
    Column("id", String(128), primary_key=True),
    Column("kind", String(16), nullable=False, index=True),
    Column("public_key", Text, nullable=False),
    Column("wrapped_private_key", LargeBinary, nullable=False),
    Column("wrapped_by", BigInteger, nullable=False, index=True),
    Column("created_at", String(27), nullable=False),
    CheckConstraint(f"kind IN ({_KINDS})", name="kind_known"),
)

user_credentials: Final = Table(
    "user_credentials",
    metadata,
    Column("tenant", String(255), primary_key=True),
    Column("user_id", String(255), primary_key=True),
    Column("kind", String(16), primary_key=True),
    Column("hash", Text),
    Column("pepper_id", BigInteger, index=True),
    # Attempts ever counted, and up to which of them they are forgiven.
    Column("counted", BigInteger, nullable=False),
    Column("cleared", BigInteger, nullable=False),
    Column("locked_until", UtcText),
    Column("verified_at", UtcText),
    Column("set_at", UtcText),
    CheckConstraint(f"kind IN ({_SECRETS})", name="kind_known"),
    CheckConstraint("(hash IS NULL) = (pepper_id IS NULL)", name="hash_has_pepper"),
    CheckConstraint("0 <= cleared AND cleared <= counted", name="cleared_were_counted"),
    Index(
        "ix_user_credentials_locked",
        "tenant",
        "locked_until",
        "user_id",
        "kind",
        sqlite_where=text("locked_until IS NOT NULL"),
        postgresql_where=text("locked_until IS NOT NULL"),
    ),
)

spent_ciphertexts: Final = Table(
    "spent_ciphertexts",
    metadata,
    Column("key_id", String(128), primary_key=True),
    Column("digest", LargeBinary(32), primary_key=True),
    Column("until", UtcText, nullable=False, index=True),
)
