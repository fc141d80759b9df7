"""Parquet modular encryption under keyrings, through pyarrow: what writes and reads files, and what wraps their keys.

Users import it from ``keystead.integrations.parquet``; it lies here for ``keystead.bulk``, which works on whole datasets.
"""

from keystead.parquet.client import KmsClient
from keystead.parquet.keys import ParquetKeys

__all__ = ["KmsClient", "ParquetKeys"]
