"""``keystead.blocking.CryptoService``."""

from __future__ import annotations

from collections.abc import Mapping

from keystead.manager import crypto_service
from keystead.manager.crypto_service import BatchResult
from keystead.model import EncryptedField
from keystead.runtime.loop import background_loop


class CryptoService:
    """``keystead.CryptoService`` for code that is not async."""

    def __init__(self, behind: crypto_service.CryptoService) -> None:
        self._service = behind

    def encrypt_field(self, name: str, value: bytes) -> EncryptedField:
        """Encrypt ``value`` (bytes; empty allowed) under the name ``name``."""
        return background_loop.run(self._service.encrypt_field(name, value))

    def decrypt_field(self, field: EncryptedField, name: str | None = None) -> bytes:
        """Return a field's value; ``name`` must be the sealed one when given."""
        return background_loop.run(self._service.decrypt_field(field, name))

    def encrypt_batch(self, fields: Mapping[str, bytes], *, atomic: bool = False) -> BatchResult[EncryptedField]:
        """Encrypt several named values; ``atomic`` raises the first error instead of keeping it."""
        return background_loop.run(self._service.encrypt_batch(fields, atomic=atomic))

    def decrypt_batch(self, fields: Mapping[str, EncryptedField], *, atomic: bool = False) -> BatchResult[bytes]:
        """Decrypt several fields, each checked against the name it is given under."""
        return background_loop.run(self._service.decrypt_batch(fields, atomic=atomic))

    def hash_field(self, value: bytes | str, *, name: str = "") -> str:
        """Return a keyed hash, 64 hex characters, equal for equal values of one ``name``."""
        return self._service.hash_field(value, name=name)

    def clear_cache(self) -> None:
        """Forget every version but the active one; a forgotten one is fetched again when it is needed."""
        background_loop.run(self._service.clear_cache())
