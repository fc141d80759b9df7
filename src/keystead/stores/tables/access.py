"""Who may call."""

from __future__ import annotations

from typing import Final

from sqlalchemy import BigInteger, CheckConstraint, Column, LargeBinary, String, Table, Text

from keystead.stores.tables.columns import UtcText, metadata

api_tokens: Final = Table(
    "api_tokens",
    metadata,
    Column("id", String(16), primary_key=True),
    Column("subject", String(255), nullable=False),
    Column("tenant", String(255), nullable=False),
    Column("scopes", Text, nullable=False),
    Column("label", String(255), nullable=False),
    Column("created_at", String(27), nullable=False),
    Column("expires_at", String(27)),
    Column("key_id", BigInteger, nullable=False, index=True),
    Column("code", LargeBinary(32), nullable=False),
    Column("revoked_at", UtcText),
    CheckConstraint("length(code) = 32", name="code_length"),
)
