"""Values of the Go KMS (kratos-boilerplate): ``version:algorithm:hex``, its JSON, and texts that begin with ``01.``.

Its data keys are in the store, where ``keystead import legacy`` has put them. Spec: docs/spec/legacy-forms.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Protocol, runtime_checkable

from keystead.crypto.legacy import parse_field, parse_text
from keystead.errors import DecryptionError, InvalidCiphertextError, InvalidInputError, KeyNotFoundError, KMSError

_OLD_TEXT: Final = b"01."


@runtime_checkable
class ReadsLegacy(Protocol):
    """``KeyManager``, as far as values of the Go KMS are concerned."""

    async def decrypt_legacy(self, value: str, *, name: str | None = None, old_text_key: bytes | None = None) -> bytes:
        """Return the plaintext of a value under its imported key."""


class KratosFields:
    """Values under imported keys.

    Args:
        km: the manager whose store has the keys.
        old_text_key: the AES key of ``01.`` texts, where there are any.
    """

    def __init__(self, km: ReadsLegacy, old_text_key: bytes | None = None) -> None:
        # The facade for code that is not async keeps the manager itself, whose calls are awaited.
        reader = getattr(km, "_manager", km)
        if not isinstance(reader, ReadsLegacy):
            raise InvalidInputError("km= of format kratos-kms is the key manager whose store has the imported keys")
        if old_text_key is not None and len(old_text_key) not in (16, 24, 32):
            raise InvalidInputError("old_text_key= of format kratos-kms is an AES key of 16, 24 or 32 bytes")
        self._reader = reader
        self._old_text_key = old_text_key

    def recognises(self, value: bytes) -> bool:
        """Return whether it is one of the forms that can be read: texts of ``01.`` only where their key was given."""
        if value.startswith(_OLD_TEXT):
            return self._old_text_key is not None
        try:
            text = value.decode()
            parse_field(text) if text.startswith("{") else parse_text(text)
        except (UnicodeDecodeError, InvalidCiphertextError):
            return False
        return True

    async def open_many(self, values: Sequence[bytes]) -> list[object | KMSError]:
        """Return the plaintext of each value, or why it does not open."""
        return [await self._opened(value) for value in values]

    async def _opened(self, value: bytes) -> object | KMSError:
        try:
            return await self._reader.decrypt_legacy(
                value.decode(), name="import kratos-kms", old_text_key=self._old_text_key
            )
        except UnicodeDecodeError:
            return InvalidCiphertextError("not the text of a value of the Go KMS")
        except KeyNotFoundError:
            return DecryptionError("the value's key was not imported; `keystead import legacy` brings it")
        except DecryptionError as exc:
            return exc
