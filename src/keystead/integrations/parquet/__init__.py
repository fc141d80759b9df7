"""Parquet modular encryption under keyrings, through pyarrow, and columns of Arrow tables.

``ParquetKeys(km, columns={"pii": ["email"]})`` writes and reads files; ``KmsClient`` is for a crypto factory of one's
own; ``encrypt_column`` and ``decrypt_column`` are for values of a field. Guide: docs/guides/parquet.md.
"""

from keystead.integrations.parquet.arrow import decrypt_column, encrypt_column
from keystead.parquet import KmsClient, ParquetKeys

__all__ = ["KmsClient", "ParquetKeys", "decrypt_column", "encrypt_column"]
