"""Encrypted fields: values bound to their record, blind indexes to search them by, and re-encryption online.

A field is declared once (``Field``); ``KeyManager.field(f)`` encrypts and decrypts its values. Spec:
docs/spec/field-v1.md.
"""

from keystead.fields.box import Encrypted
from keystead.fields.cipher import FieldCipher
from keystead.fields.field import Field
from keystead.fields.indexes import Exact, Index, Normalised, Prefix, Tokens

__all__ = ["Encrypted", "Exact", "Field", "FieldCipher", "Index", "Normalised", "Prefix", "Tokens"]
