"""Parquet modular encryption under keyrings, through pyarrow: what writes and reads files, and what wraps their keys.

Users import it from ``keystead.integrations.parquet``; ``keystead.bulk`` works on whole datasets with it.
"""

from keystead.parquet.client import KmsClient
from keystead.parquet.keys import ParquetKeys

__all__ = ["KmsClient", "ParquetKeys"]
