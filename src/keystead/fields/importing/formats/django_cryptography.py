"""Binary columns of django-cryptography: a pickled value, encrypted as Fernet does with longer keys.

``0x80 || u64 seconds || IV (16) || AES-256-CBC, PKCS#7 || HMAC-SHA256 (32)``. Proven with django-cryptography-django5,
whose form is that of django-cryptography 1.1. The pickle is opened after its code was checked, and only as far as it
holds a plain value: nothing in it is run.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.hmac import HMAC
from cryptography.hazmat.primitives.kdf.pbkdf2 import PBKDF2HMAC
from cryptography.hazmat.primitives.padding import PKCS7

from keystead.errors import InvalidInputError
from keystead.fields.importing.form import Keys, keys_of, not_opened
from keystead.fields.importing.plain_pickle import PlainPickle

_NAME: Final = "django-cryptography"
_START: Final = b"\x80\0\0\0"
"""The version, and the first bytes of a time before 2106."""
_HEAD: Final = 1 + 8 + 16
_TAG: Final = 32
_ITERATIONS: Final = 30_000
_SALT: Final = b"django-cryptography"


class DjangoCryptography:
    """Fields that ``encrypt(models.TextField())`` and the like declare.

    Args:
        keys: SECRET_KEY, and those that it was before: the code of each value is under one of them.
        encryption_keys: CRYPTOGRAPHY_KEY, where it is set, and what it was before.
        field_keys: ``key=`` of the field itself, where it has one: 16, 24 or 32 bytes.
        salt: CRYPTOGRAPHY_SALT.
    """

    def __init__(
        self,
        keys: Keys,
        encryption_keys: Keys | None = None,
        field_keys: Keys | None = None,
        salt: str | bytes = _SALT,
    ) -> None:
        if encryption_keys is not None and field_keys is not None:
            raise InvalidInputError(f"format {_NAME} takes encryption_keys= or field_keys=, which overrides them there")
        signing = keys_of(keys, _NAME)
        self._codes = [_code_of(key) for key in signing]
        if field_keys is not None:
            self._keys = list(keys_of(field_keys, _NAME, option="field_keys"))
            if any(len(key) not in (16, 24, 32) for key in self._keys):
                raise InvalidInputError(f"field_keys= of format {_NAME} are AES keys of 16, 24 or 32 bytes")
            return
        salted = salt.encode() if isinstance(salt, str) else salt
        given = signing if encryption_keys is None else keys_of(encryption_keys, _NAME, option="encryption_keys")
        self._keys = [PBKDF2HMAC(SHA256(), 32, salted, _ITERATIONS).derive(key) for key in given]

    def recognises(self, value: bytes) -> bool:
        """Return whether it begins as a value does, and has the length of one."""
        sealed = len(value) - _HEAD - _TAG
        return value.startswith(_START) and sealed >= 16 and sealed % 16 == 0

    def open(self, value: bytes) -> object:
        """Return the value, in a type of its own."""
        signed, tag = value[:-_TAG], value[-_TAG:]
        if not any(is_of(signed, tag) for is_of in self._codes):
            raise not_opened()
        for key in self._keys:
            try:
                return PlainPickle.value_of(_opened(key, signed))
            except ValueError:
                continue
        raise not_opened()


def _code_of(key: bytes) -> Callable[[bytes, bytes], bool]:
    def is_of(signed: bytes, tag: bytes) -> bool:
        code = HMAC(key, SHA256())
        code.update(signed)
        try:
            code.verify(tag)
        except InvalidSignature:
            return False
        return True

    return is_of


def _opened(key: bytes, signed: bytes) -> bytes:
    decryptor = Cipher(algorithms.AES(key), modes.CBC(signed[9:_HEAD])).decryptor()
    unpadder = PKCS7(128).unpadder()
    padded = decryptor.update(signed[_HEAD:]) + decryptor.finalize()
    return unpadder.update(padded) + unpadder.finalize()
