"""Subjects, whose keys can be erased."""

from __future__ import annotations

from typing import Final

from sqlalchemy import BigInteger, CheckConstraint, Column, Integer, LargeBinary, String, Table

from keystead.stores.tables.columns import UtcText, metadata

subjects: Final = Table(
    "subjects",
    metadata,
    Column("id", LargeBinary(32), primary_key=True),
    Column("keyring", String(255), nullable=False, unique=True),
    Column("created_at", UtcText, nullable=False),
    CheckConstraint("length(id) = 32", name="id_length"),
)

erasure_state: Final = Table(
    "erasure_state",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("count", BigInteger, nullable=False),
    Column("head", LargeBinary(32), nullable=False),
    CheckConstraint("id = 1", name="one_row"),
    CheckConstraint("length(head) = 32", name="head_length"),
)
