"""Parquet datasets that are larger than one process: encrypted, re-encrypted, rotated and verified.

``encrypt(km, "people", "people-encrypted", KeyRules(columns={"pii": ["email"]}), engine=ProcessPool())``. Guide:
docs/guides/bulk.md.
"""

from keystead.bulk.cluster import Certificates, Dask
from keystead.bulk.engines import BulkEngine, Inline
from keystead.bulk.operations import encrypt, reencrypt, rotate_master_keys
from keystead.bulk.planning import BulkPlan, plan
from keystead.bulk.processes import ProcessPool
from keystead.bulk.report import BulkProgress, BulkReport, FileFailure
from keystead.bulk.tasks import KeyRules, Operation
from keystead.bulk.verifying import verify

__all__ = [
    "BulkEngine",
    "BulkPlan",
    "BulkProgress",
    "BulkReport",
    "Certificates",
    "Dask",
    "FileFailure",
    "Inline",
    "KeyRules",
    "Operation",
    "ProcessPool",
    "encrypt",
    "plan",
    "reencrypt",
    "rotate_master_keys",
    "verify",
]
