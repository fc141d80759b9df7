"""Per-request KMS use: every call here reaches the KMS. FraiseQL's second usage pattern."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Any, Final, TypeAlias

from keystead import telemetry
from keystead.crypto.context import check_context
from keystead.errors import (
    ConfigurationError,
    DecryptionError,
    InvalidInputError,
    ProviderNotConfiguredError,
)
from keystead.model import DataKeyPair, EncryptedData, KeyReference, SecretBytes
from keystead.ports import GeneratesDataKeys, KmsProvider, Random, ReadsForeignData

FIELD_TYPE: Final = "keystead.field_type"
"""The reserved context key in which a field's type is authenticated."""
FRAISEQL_ENCODING: Final = "_encoding"
"""FraiseQL's own context key of a text field."""
FIELD_TYPES: Final = ("text", "bytes", "json")
KEY_SIZES: Final = {"AES_128": 16, "AES_256": 32}

Encrypted: TypeAlias = EncryptedData | Mapping[str, Any] | bytes | str


class KmsCalls:
    """Encrypts and decrypts through the configured provider instances.

    Args:
        providers: guarded providers by instance name.
        default_provider: the instance used where none is named.
        default_key_id: the key used where none is named; None raises at first need.
        context_prefix: added to every context as ``service``.
        provider_aliases: old instance name -> the name it has now.
        random: source of locally drawn data keys.
    """

    def __init__(
        self,
        providers: Mapping[str, KmsProvider],
        default_provider: str,
        default_key_id: str | None,
        *,
        context_prefix: str | None = None,
        provider_aliases: Mapping[str, str] | None = None,
        random: Random = os.urandom,
    ) -> None:
        self._providers = providers
        self._default_provider = default_provider
        self._default_key_id = default_key_id
        self._prefix = context_prefix
        self._aliases = dict(provider_aliases or {})
        self._random = random

    async def encrypt(
        self, plaintext: bytes, key_id: str | None, provider: str | None, context: Mapping[str, str] | None
    ) -> EncryptedData:
        """Encrypt bytes under a KMS key."""
        content = _bytes_like(plaintext)
        return await self._encrypt(content, key_id, provider, self._sealed_context(context))

    async def decrypt(self, encrypted: Encrypted, context: Mapping[str, str] | None) -> bytes:
        """Decrypt; a context that is given must be the one given at encryption."""
        data, is_bare = EncryptedData.parse(encrypted), _is_bare(encrypted)
        self._check(data, context, is_bare=is_bare)
        instance = self._instance(data.key_reference.provider)
        try:
            return await instance.decrypt(data, context=data.context)
        except DecryptionError as exc:
            if exc.retryable or not is_bare or not isinstance(instance, ReadsForeignData):
                raise
        plaintext = await instance.decrypt_foreign(data)
        telemetry.legacy_read("fraiseql")
        return plaintext

    async def encrypt_field(
        self,
        value: object,
        key_id: str | None,
        field_type: str | None,
        provider: str | None,
        context: Mapping[str, str] | None,
    ) -> EncryptedData:
        """Encrypt a text, bytes or JSON value; its type is authenticated with it."""
        kind = _infer(value) if field_type is None else field_type
        sealed = self._sealed_context(context) | {FIELD_TYPE: kind}
        return await self._encrypt(_field_bytes(value, kind), key_id, provider, sealed)

    async def decrypt_field(
        self, encrypted: Encrypted, field_type: str | None, context: Mapping[str, str] | None
    ) -> object:
        """Return the value in its type; ``field_type`` must be the sealed one when given."""
        if field_type is not None:
            _require_type(field_type)
        data = EncryptedData.parse(encrypted)
        kind = data.context.get(FIELD_TYPE)
        if kind is None and _is_bare(encrypted):
            kind = "text" if data.context.get(FRAISEQL_ENCODING) == "utf-8" else "bytes"
        if kind not in FIELD_TYPES or field_type not in (None, kind):
            raise DecryptionError("decryption failed: not a field of that type")
        return _field_value(await self.decrypt(encrypted, context), kind)

    async def generate_data_key(
        self, key_id: str | None, key_spec: str, provider: str | None, context: Mapping[str, str] | None
    ) -> DataKeyPair:
        """Return a new data key, drawn by the service where it can and here where it cannot."""
        if key_spec not in KEY_SIZES:
            raise InvalidInputError(f"key_spec must be AES_128 or AES_256, not {key_spec!r}")
        sealed = self._sealed_context(context)
        instance = self._instance(provider or self._default_provider)
        if isinstance(instance, GeneratesDataKeys):
            return await instance.generate_data_key(self._key_id(key_id, provider), context=sealed, key_spec=key_spec)
        plaintext = self._random(KEY_SIZES[key_spec])
        encrypted = await self._encrypt(plaintext, key_id, provider, sealed)
        return DataKeyPair(SecretBytes(plaintext), encrypted, encrypted.key_reference)

    async def open_data_key(self, encrypted_key: Encrypted, context: Mapping[str, str] | None) -> DataKeyPair:
        """Return the pair again from its wrapped half."""
        data = EncryptedData.parse(encrypted_key)
        return DataKeyPair(SecretBytes(await self.decrypt(encrypted_key, context)), data, data.key_reference)

    def reference(self) -> KeyReference:
        """Return the default KEK as configured."""
        return KeyReference(self._default_provider, self._key_id(None, None))

    async def _encrypt(
        self, content: bytes, key_id: str | None, provider: str | None, sealed: Mapping[str, str]
    ) -> EncryptedData:
        instance = self._instance(provider or self._default_provider)
        return await instance.encrypt(content, self._key_id(key_id, provider), context=sealed)

    def _key_id(self, key_id: str | None, provider: str | None) -> str:
        if key_id is not None:
            return key_id
        if self._default_key_id is None or provider not in (None, self._default_provider):
            raise ConfigurationError("no key id: pass key_id=, or give the manager a default_key_id")
        return self._default_key_id

    def _instance(self, name: str) -> KmsProvider:
        name = self._aliases.get(name, name)
        try:
            return self._providers[name]
        except KeyError:
            raise ProviderNotConfiguredError(
                f"no provider instance {name!r} is configured; add it to providers=, or map its new name with "
                "provider_aliases="
            ) from None

    def _sealed_context(self, context: Mapping[str, str] | None) -> dict[str, str]:
        sealed = check_context(context)
        if self._prefix is not None:
            if "service" in sealed:
                raise InvalidInputError("context key 'service' is set by context_prefix; use another name")
            sealed["service"] = self._prefix
        return sealed

    def _check(self, data: EncryptedData, context: Mapping[str, str] | None, *, is_bare: bool) -> None:
        if context is None:
            return
        expected = check_context(context)
        stored = {key: value for key, value in data.context.items() if not key.startswith("keystead.")}
        if self._prefix is not None and "service" not in expected:
            stored.pop("service", None)
        if is_bare and FRAISEQL_ENCODING not in expected:
            stored.pop(FRAISEQL_ENCODING, None)
        if stored != expected:
            raise DecryptionError("decryption failed: wrong key, wrong context or altered bytes")


def _is_bare(encrypted: Encrypted) -> bool:
    """Whether this is the bare dict form, without our version: the one that FraiseQL writes."""
    return isinstance(encrypted, Mapping) and "version" not in encrypted


def _bytes_like(plaintext: object) -> bytes:
    if isinstance(plaintext, str):
        raise InvalidInputError("encrypt takes bytes: call .encode() on text, or use encrypt_field")
    try:
        return bytes(memoryview(plaintext))  # type: ignore[arg-type]
    except (TypeError, ValueError):
        raise InvalidInputError(f"encrypt takes bytes, not {type(plaintext).__name__}; see encrypt_field") from None


def _infer(value: object) -> str:
    if isinstance(value, str):
        return "text"
    return "bytes" if isinstance(value, bytes | bytearray | memoryview) else "json"


def _require_type(kind: str) -> None:
    if kind not in FIELD_TYPES:
        raise InvalidInputError(f"field_type must be text, bytes or json, not {kind!r}")


def _field_bytes(value: object, kind: str) -> bytes:
    _require_type(kind)
    if kind == "text":
        if not isinstance(value, str):
            raise InvalidInputError(f"field_type text takes str, not {type(value).__name__}")
        try:
            return value.encode()
        except UnicodeEncodeError:
            raise InvalidInputError("the text has a lone surrogate, which UTF-8 cannot encode") from None
    if kind == "bytes":
        return _bytes_like(value)
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
    except (TypeError, ValueError):
        raise InvalidInputError(f"{type(value).__name__} is not a value JSON can hold") from None


def _field_value(content: bytes, kind: str) -> object:
    if kind == "bytes":
        return content
    try:
        return content.decode() if kind == "text" else json.loads(content)
    except ValueError:
        raise DecryptionError("decryption failed: not a field of that type") from None
