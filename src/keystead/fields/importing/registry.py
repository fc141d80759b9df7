"""Which formats there are: a line here, and a file in ``formats/`` that is loaded when it is asked for."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from importlib import import_module
from typing import Any, Final

from keystead.errors import InvalidInputError
from keystead.fields.importing.form import Format

_HOME: Final = "keystead.fields.importing.formats"
FORMATS: Final[Mapping[str, str]] = {
    "aws-encryption-sdk": "aws_encryption_sdk:messages_of",
    "django-cryptography": "django_cryptography:DjangoCryptography",
    "django-fernet-encrypted-fields": "django_fernet:DjangoFernetEncryptedFields",
    "django-fernet-fields": "django_fernet:DjangoFernetFields",
    "fernet": "fernet:FernetTokens",
    "fraiseql": "fraiseql:records_of",
    "kratos-kms": "kratos_kms:KratosFields",
    "sqlalchemy-utils": "sqlalchemy_utils:engine_of",
    "vault": "vault:TransitTexts",
}
"""What makes each format, in a file of its own."""


def made(name: str, options: Mapping[str, object]) -> Format:
    """Return a format with its keys and options.

    Raises:
        InvalidInputError: an unknown name, an option that the format has not, or one that cannot be.
        MissingDependencyError: a library that it needs is not installed; the message names the extra.
    """
    if name not in FORMATS:
        raise InvalidInputError(f"there is no format {name!r} to import; there are {', '.join(FORMATS)}")
    module, _, attribute = FORMATS[name].partition(":")
    make: Any = getattr(import_module(f"{_HOME}.{module}"), attribute)
    known = inspect.signature(make).parameters
    if unknown := sorted(options.keys() - known.keys()):
        raise InvalidInputError(f"format {name} has no option {unknown[0]!r}; it has {', '.join(known)}")
    missing = [each for each, is_ in known.items() if is_.default is is_.empty and each not in options]
    if missing:
        raise InvalidInputError(f"format {name} needs {' and '.join(f'{each}=' for each in missing)}")
    built: Format = make(**options)
    return built
