"""Wrapping and unwrapping of keys: a WRAP key by a KMS, every other key by a WRAP key.

The context sealed with a wrapped key holds every immutable column of its row and the store's id, so that a wrapped
key moved to another row, version, keyring or store does not unwrap. Spec: docs/spec/context-v1.md.
"""

from __future__ import annotations

import hmac
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Final

from keystead.crypto.context import encode_context
from keystead.crypto.keyring import Keyring
from keystead.errors import (
    DecryptionError,
    KeyDecryptionFailError,
    KeyGenerationFailError,
    ProviderNotConfiguredError,
)
from keystead.model import EncryptedData, KeyRecord, KeyReference, SecretBytes, WrapState
from keystead.ports import GeneratesDataKeys, KeepsWraps, KmsProvider, Random, RewrapsCiphertexts

WRAP_KEY_SIZE: Final = 32


@dataclass(frozen=True, slots=True)
class Kek:
    """The KEK that new WRAP versions are wrapped by: a provider instance and a key id as it was configured."""

    provider: str
    key_id: str


def row_context(store_id: str, key: KeyRecord) -> dict[str, str]:
    """Return the context sealed with ``key``: its immutable columns, the store's id, and its own extra pairs."""
    return {
        **key.context,
        "keystead.store": store_id,
        "keystead.purpose": key.purpose.value,
        "keystead.keyring": key.keyring,
        "keystead.version": str(key.version),
        "keystead.data_key_id": str(key.id),
        "keystead.algorithm": key.algorithm,
        "keystead.created": key.created,
    }


class KekWrapper:
    """Wraps WRAP keys by the configured KMS instances; each method is one KMS call."""

    def __init__(self, providers: Mapping[str, KmsProvider], random: Random) -> None:
        self._providers = providers
        self._random = random

    async def draw(self, store_id: str, key: KeyRecord, kek: Kek) -> tuple[KeyRecord, bytes]:
        """Return ``key`` with a new wrapped WRAP key, and the WRAP key itself.

        The service draws it where it can; otherwise it is drawn here and encrypted.
        """
        provider = self.provider(kek.provider)
        context = row_context(store_id, key)
        if isinstance(provider, GeneratesDataKeys):
            pair = await provider.generate_data_key(kek.key_id, context=context)
            if len(pair.plaintext_key) != WRAP_KEY_SIZE:
                raise KeyGenerationFailError(f"the provider {kek.provider!r} drew a data key that is not 32 bytes")
            return _wrapped_row(key, pair.encrypted_key), bytes(pair.plaintext_key)
        plaintext = SecretBytes(self._random(WRAP_KEY_SIZE))
        return _wrapped_row(key, await provider.encrypt(plaintext, kek.key_id, context=context)), plaintext

    async def unwrap(self, store_id: str, key: KeyRecord) -> SecretBytes:
        """Return the WRAP key of a row.

        Raises:
            KeyDecryptionFailError: another KEK, or an altered row. Nothing was changed.
            ProviderNotConfiguredError: the row names an instance this manager does not have.
        """
        provider = self.provider(key.kek_provider or "")
        with self._telling(key):
            plaintext = SecretBytes(await provider.decrypt(_sealed_data(key), context=row_context(store_id, key)))
        if len(plaintext) != WRAP_KEY_SIZE:
            raise _cannot_unwrap(key)
        return plaintext

    async def rewrap(self, store_id: str, key: KeyRecord, kek: Kek, *, same_key: bool) -> KeyRecord:
        """Return ``key`` wrapped by ``kek``'s newest version, by the service itself where ``same_key`` wraps it.

        The new wrap is to replace the only one there is, and so it is opened first.

        Raises:
            KeyDecryptionFailError: as ``unwrap``; also where several KEKs wrap it and do not agree.
            KMSError: also where ``kek`` does not let the new wrap be opened.
        """
        provider = self.provider(kek.provider)
        context = row_context(store_id, key)
        if isinstance(provider, KeepsWraps) and self._providers.get(key.kek_provider or "") is provider:
            with self._telling(key):
                return _wrapped_row(key, await provider.mend_wraps(_sealed_data(key), kek.key_id, context=context))
        if same_key and isinstance(provider, RewrapsCiphertexts):
            with self._telling(key):
                moved = _wrapped_row(key, await provider.rewrap(_sealed_data(key), context=context))
            await self.unwrap(store_id, moved)
            return moved
        plaintext = await self.unwrap(store_id, key)
        moved = _wrapped_row(key, await provider.encrypt(plaintext, kek.key_id, context=context))
        if not hmac.compare_digest(plaintext, await self.unwrap(store_id, moved)):
            raise _cannot_unwrap(moved)
        return moved

    def keeper(self, key: KeyRecord) -> KeepsWraps | None:
        """Return the instance that wraps a row under several KEKs, or None where the row is under one."""
        provider = self._providers.get(key.kek_provider or "")
        return provider if isinstance(provider, KeepsWraps) else None

    def missing_wraps(self, key: KeyRecord) -> list[str]:
        """Return the KEKs of a set whose wrap a row lacks; asks none of them, and nothing of a damaged row."""
        keeper = self.keeper(key)
        try:
            return [] if keeper is None else keeper.missing_wraps(_sealed_data(key))
        except DecryptionError:
            return []

    async def check_wraps(
        self, store_id: str, key: KeyRecord, *, key_id: str | None = None, opens: bool = False
    ) -> Mapping[str, WrapState]:
        """Return how each KEK's wrap of a row stands; empty where the row is under one KEK. See ``KeepsWraps``.

        Raises:
            KeyDecryptionFailError: an altered row.
        """
        keeper = self.keeper(key)
        if keeper is None:
            return {}
        context = row_context(store_id, key)
        with self._telling(key):
            return await keeper.check_wraps(_sealed_data(key), key_id, context=context, opens=opens)

    @contextmanager
    def _telling(self, key: KeyRecord) -> Iterator[None]:
        """Have a refusal name the row; several KEKs have more to say than one."""
        try:
            yield
        except ProviderNotConfiguredError:
            raise
        except DecryptionError as exc:
            told = None if self.keeper(key) is None else str(exc)
            raise _cannot_unwrap(key, told) from None

    def provider(self, name: str) -> KmsProvider:
        """Return the provider instance ``name``.

        Raises:
            ProviderNotConfiguredError: there is none of that name.
        """
        try:
            return self._providers[name]
        except KeyError:
            raise ProviderNotConfiguredError(
                f"a record names the provider instance {name!r}, which this manager does not have; add it to "
                "providers=, or map its new name with provider_aliases="
            ) from None


def seal_key(ring: Keyring, store_id: str, key: KeyRecord, plaintext: bytes | bytearray) -> KeyRecord:
    """Return ``key`` with ``plaintext`` wrapped by the WRAP keyring's active version."""
    wrapped = ring.seal(bytes(plaintext), encode_context(row_context(store_id, key)))
    return replace(key, wrapped_key=wrapped, wrapped_by=int.from_bytes(wrapped[2:10], "big"))


def open_key(ring: Keyring, store_id: str, key: KeyRecord) -> bytes:
    """Return the key inside a row that a WRAP key wraps.

    Raises:
        KeyDecryptionFailError: an altered row, one of another store, or one whose WRAP version is not loaded.
    """
    wrapped = key.wrapped_key or b""
    if key.wrapped_by is None or wrapped[2:10] != key.wrapped_by.to_bytes(8, "big"):
        raise _cannot_unwrap(key)
    try:
        return ring.open(wrapped, encode_context(row_context(store_id, key)))
    except DecryptionError:
        raise _cannot_unwrap(key) from None


def _wrapped_row(key: KeyRecord, encrypted: EncryptedData) -> KeyRecord:
    reference = encrypted.key_reference
    return replace(
        key,
        wrapped_key=encrypted.ciphertext,
        wrapped_by=None,
        kek_provider=reference.provider,
        kek_key_id=reference.key_id,
        kek_version=reference.key_version,
        kek_algorithm=encrypted.algorithm,
    )


def _sealed_data(key: KeyRecord) -> EncryptedData:
    return EncryptedData(
        ciphertext=key.wrapped_key or b"",
        key_reference=KeyReference(
            provider=key.kek_provider or "", key_id=key.kek_key_id or "", key_version=key.kek_version
        ),
        algorithm=key.kek_algorithm or "",
        encrypted_at=key.created_at,
    )


def _cannot_unwrap(key: KeyRecord, told: str | None = None) -> KeyDecryptionFailError:
    where = f"KEK {key.kek_key_id!r} of provider {key.kek_provider!r}" if key.kek_provider else "its WRAP key"
    return KeyDecryptionFailError(
        f"data key {key.id} (keyring {key.keyring!r} version {key.version}) cannot be unwrapped by {where}: "
        "another KEK than the one that wrapped it, or an altered row; nothing was changed. "
        "Configure the KEK this store was made with, or restore the row from an export" + (f" ({told})" if told else "")
    )
