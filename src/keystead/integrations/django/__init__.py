"""Encrypted model fields for Django: bound to their row, searchable, decrypted when they are read.

``email = EncryptedEmailField(unique=True)`` declares a field, ``KEYSTEAD`` in the settings or ``bind(km)`` gives it
keys. Add ``"keystead.integrations.django"`` to INSTALLED_APPS. Needs the extra ``django``.
Guide: docs/guides/django.md.
"""

from keystead.errors import MissingDependencyError

try:
    import django as _django  # noqa: F401
except ImportError:
    raise MissingDependencyError("this integration needs Django: pip install 'keystead[django]'") from None

from keystead.fields import Encrypted, Exact, Normalised, Prefix, Tokens
from keystead.integrations.django import saving as _saving  # noqa: F401
from keystead.integrations.django import written as _written  # noqa: F401
from keystead.integrations.django.binding import Binding, bind
from keystead.integrations.django.bulk import bulk_create, bulk_update
from keystead.integrations.django.companions import HashField, RowKeyField
from keystead.integrations.django.lookups import of_tenant
from keystead.integrations.django.types import (
    EncryptedBinaryField,
    EncryptedBooleanField,
    EncryptedCharField,
    EncryptedDateField,
    EncryptedDateTimeField,
    EncryptedDecimalField,
    EncryptedEmailField,
    EncryptedFloatField,
    EncryptedIntegerField,
    EncryptedJSONField,
    EncryptedTextField,
    EncryptedURLField,
    EncryptedUUIDField,
)

__all__ = [
    "Binding",
    "Encrypted",
    "EncryptedBinaryField",
    "EncryptedBooleanField",
    "EncryptedCharField",
    "EncryptedDateField",
    "EncryptedDateTimeField",
    "EncryptedDecimalField",
    "EncryptedEmailField",
    "EncryptedFloatField",
    "EncryptedIntegerField",
    "EncryptedJSONField",
    "EncryptedTextField",
    "EncryptedURLField",
    "EncryptedUUIDField",
    "Exact",
    "HashField",
    "Normalised",
    "Prefix",
    "RowKeyField",
    "Tokens",
    "bind",
    "bulk_create",
    "bulk_update",
    "of_tenant",
]
