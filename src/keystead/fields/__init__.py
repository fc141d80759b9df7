"""Encrypted fields: values bound to their record, blind indexes to search them by, and re-encryption online.

A field is declared once (``Field``); ``KeyManager.field(f)`` encrypts and decrypts its values. Spec:
docs/spec/field-v1.md.
"""

from keystead.fields.box import Encrypted
from keystead.fields.cipher import FieldCipher
from keystead.fields.field import Field
from keystead.fields.importing import Importer, importer
from keystead.fields.indexes import Exact, Index, Normalised, Prefix, Tokens
from keystead.fields.job_records import cancel, pause, reencryptions, resume
from keystead.fields.planning import ReencryptPlan, VersionRows, plan
from keystead.fields.progress import ReencryptProgress, ReencryptReport
from keystead.fields.reencrypt import BATCH_ROWS, reencrypt
from keystead.fields.waiting import serve_wishes
from keystead.fields.wishes import cancel_wish, wish, wishes

__all__ = [
    "BATCH_ROWS",
    "Encrypted",
    "Exact",
    "Field",
    "FieldCipher",
    "Importer",
    "Index",
    "Normalised",
    "Prefix",
    "ReencryptPlan",
    "ReencryptProgress",
    "ReencryptReport",
    "Tokens",
    "VersionRows",
    "cancel",
    "cancel_wish",
    "importer",
    "pause",
    "plan",
    "reencrypt",
    "reencryptions",
    "resume",
    "serve_wishes",
    "wish",
    "wishes",
]
