"""Providers as an application might write its own."""

from __future__ import annotations

from collections.abc import Mapping

from keystead.errors import DecryptionError
from keystead.model import EncryptedData
from keystead.testing import FakeKMS


class BareProvider:
    """A provider that can do no more than a provider must."""

    provider_name = "bare"

    def __init__(self, kms: FakeKMS) -> None:
        self._kms = kms

    async def encrypt(
        self, plaintext: bytes, key_id: str, *, context: Mapping[str, str] | None = None
    ) -> EncryptedData:
        return await self._kms.encrypt(plaintext, key_id, context=context)

    async def decrypt(self, encrypted: EncryptedData, *, context: Mapping[str, str] | None = None) -> bytes:
        return await self._kms.decrypt(encrypted, context=context)


class KeyedProvider(BareProvider):
    """A provider with a key id of its own."""

    default_key_id = "own"


class ForeignReader(BareProvider):
    """A provider that reads what another system wrote under its key: here, a ciphertext that is its plaintext."""

    async def decrypt(self, encrypted: EncryptedData, *, context: Mapping[str, str] | None = None) -> bytes:
        raise DecryptionError("decryption failed")

    async def decrypt_foreign(self, encrypted: EncryptedData) -> bytes:
        return encrypted.ciphertext
