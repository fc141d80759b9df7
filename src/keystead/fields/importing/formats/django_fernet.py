"""Fields of two Django libraries that keep Fernet tokens under keys derived from settings.

Proven with django-fernet-encrypted-fields and django-fernet-fields-v2, whose form is that of django-fernet-fields.
"""

from __future__ import annotations

import base64
from typing import Final

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.kdf.pbkdf2 import PBKDF2HMAC

from keystead.errors import InvalidInputError
from keystead.fields.importing.form import MOST_KEYS, Keys, keys_of
from keystead.fields.importing.formats.fernet import is_token, opened, opener

_ITERATIONS: Final = 100_000
_HKDF_SALT: Final = b"django-fernet-fields-hkdf-salt"
_HKDF_INFO: Final = b"django-fernet-fields"


class DjangoFernetEncryptedFields:
    """Text columns of ``encrypted_fields``: a token under PBKDF2 of SECRET_KEY and SALT_KEY.

    Args:
        keys: SECRET_KEY, and those of SECRET_KEY_FALLBACKS.
        salts: SALT_KEY, one or its list.
    """

    def __init__(self, keys: Keys, salts: Keys) -> None:
        name = "django-fernet-encrypted-fields"
        secrets, salted = keys_of(keys, name), keys_of(salts, name, option="salts")
        if len(secrets) * len(salted) > MOST_KEYS:
            raise InvalidInputError(f"format {name} takes at most {MOST_KEYS} pairs of a key and a salt")
        derived = [_pbkdf2(secret, salt) for secret in secrets for salt in salted]
        self._opener = opener(tuple(derived), name)

    def recognises(self, value: bytes) -> bool:
        """Return whether it is a token."""
        return is_token(value)

    def open(self, value: bytes) -> bytes:
        """Return the text, which is Python's of the value."""
        return opened(self._opener, value)


class DjangoFernetFields:
    """Binary columns of ``fernet_fields``: a token under HKDF of a setting.

    Args:
        keys: FERNET_KEYS, or SECRET_KEY where that is not set.
        use_hkdf: FERNET_USE_HKDF; without it the keys are Fernet's own.
    """

    def __init__(self, keys: Keys, use_hkdf: bool = True) -> None:
        name = "django-fernet-fields"
        given = keys_of(keys, name)
        self._opener = opener(tuple(map(_hkdf, given)) if use_hkdf else given, name)

    def recognises(self, value: bytes) -> bool:
        """Return whether it is a token."""
        return is_token(value)

    def open(self, value: bytes) -> bytes:
        """Return the text, which is Python's of the value."""
        return opened(self._opener, value)


def _pbkdf2(secret: bytes, salt: bytes) -> bytes:
    return base64.urlsafe_b64encode(PBKDF2HMAC(SHA256(), 32, salt, _ITERATIONS).derive(secret))


def _hkdf(secret: bytes) -> bytes:
    return base64.urlsafe_b64encode(HKDF(SHA256(), 32, _HKDF_SALT, _HKDF_INFO).derive(secret))
