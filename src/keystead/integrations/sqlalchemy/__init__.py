"""Encrypted columns for SQLAlchemy 2.1: bound to their row, searchable, decrypted when they are read.

``encrypted(...)`` declares a column, ``bind(engine, km)`` gives an engine the keys. Guide:
docs/guides/encrypted-columns.md.
"""

from keystead.fields import Encrypted, Exact, Normalised, Prefix, Tokens
from keystead.integrations.sqlalchemy.binding import Binding
from keystead.integrations.sqlalchemy.binds import bind
from keystead.integrations.sqlalchemy.bulk import sealed_inserts, sealed_rows, sealed_updates
from keystead.integrations.sqlalchemy.column import encrypted
from keystead.integrations.sqlalchemy.type import EncryptedBytes

__all__ = [
    "Binding",
    "Encrypted",
    "EncryptedBytes",
    "Exact",
    "Normalised",
    "Prefix",
    "Tokens",
    "bind",
    "encrypted",
    "sealed_inserts",
    "sealed_rows",
    "sealed_updates",
]
