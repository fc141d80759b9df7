"""Transit keys."""

from __future__ import annotations

from typing import Final

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    ForeignKey,
    Integer,
    String,
    Table,
    UniqueConstraint,
)

from keystead.stores.tables.columns import UtcText, metadata
from keystead.stores.tables.keys import keyrings

transit_settings: Final = Table(
    "transit_settings",
    metadata,
    Column("tenant", String(255), primary_key=True),
    Column("disable_upsert", Boolean, nullable=False),
)

transit_keys: Final = Table(
    "transit_keys",
    metadata,
    Column("keyring", String(255), ForeignKey(keyrings.c.name), primary_key=True),
    Column("tenant", String(255), nullable=False),
    Column("name", String(255), nullable=False),
    Column("type", String(32), nullable=False),
    Column("created_at", UtcText, nullable=False),
    Column("derived", Boolean, nullable=False),
    Column("convergent", Boolean, nullable=False),
    Column("exportable", Boolean, nullable=False),
    Column("allow_plaintext_backup", Boolean, nullable=False),
    Column("deletion_allowed", Boolean, nullable=False),
    Column("min_available", BigInteger, nullable=False),
    Column("min_decryption", BigInteger, nullable=False),
    Column("min_encryption", BigInteger, nullable=False),
    Column("auto_rotate_s", BigInteger, nullable=False),
    Column("imported", Boolean, nullable=False),
    Column("allow_rotation", Boolean, nullable=False),
    Column("key_size", Integer, nullable=False),
    Column("soft_deleted", Boolean, nullable=False),
    UniqueConstraint("tenant", "name"),
    CheckConstraint("min_available >= 0", name="min_available_not_negative"),
    CheckConstraint("min_decryption >= min_available AND min_decryption >= 1", name="min_decryption_available"),
    CheckConstraint("min_encryption = 0 OR min_encryption >= min_decryption", name="min_encryption_decrypts"),
)
