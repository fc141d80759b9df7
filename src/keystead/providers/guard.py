"""The guard: deadline, retries, single flight, error mapping and metrics around any provider."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Final, cast

from keystead.crypto.context import encode_context
from keystead.errors import (
    InvalidInputError,
    KMSError,
    ProviderConnectionError,
)
from keystead.model import DataKeyPair, EncryptedData, KeyDescription, KeyReference, RotationPolicy, WrapState
from keystead.ports import (
    Closes,
    DescribesKeys,
    EncryptsBatches,
    GeneratesDataKeys,
    KeepsWraps,
    OpensTransitTexts,
    ReadsForeignData,
    ReportsRotationPolicy,
    RetiresKeyVersions,
    RewrapsCiphertexts,
    RotatesKeys,
)
from keystead.providers import guard_signing
from keystead.providers.guard_signing import GuardedSigning

_CAPABILITIES: Final[Mapping[str, type]] = {
    "generate_data_key": GeneratesDataKeys,
    "describe": DescribesKeys,
    "rotate_key": RotatesKeys,
    "rewrap": RewrapsCiphertexts,
    "get_rotation_policy": ReportsRotationPolicy,
    "encrypt_batch": EncryptsBatches,
    "decrypt_foreign": ReadsForeignData,
    "decrypt_texts": OpensTransitTexts,
    "retire_version": RetiresKeyVersions,
    "missing_wraps": KeepsWraps,
    "check_wraps": KeepsWraps,
    "mend_wraps": KeepsWraps,
    "aclose": Closes,
    **guard_signing.CAPABILITIES,
}


class GuardedProvider(GuardedSigning):
    """A provider instance as the rest of Keystead sees it.

    It has the capabilities of the provider inside, no more and no fewer: ``isinstance(guarded, RotatesKeys)`` asks
    the provider. Every answer names the instance in its ``key_reference``. Every call ends within ``deadline_s``
    (real seconds, all attempts together) with a result or one of Keystead's errors; of a foreign exception only the
    class's name is kept.

    ``attempts`` is for calls that may be repeated, while the instance's retry budget lasts; ``rotate_key`` is made
    once, and where its outcome is unclear, ``describe`` decides. A provider with guards of its own inside
    (``guards_its_calls``) gets one attempt.

    Raises:
        InvalidInputError: an instance name that is empty or holds a colon, or a deadline or attempts that cannot be.
    """

    _capabilities = _CAPABILITIES

    async def encrypt(
        self, plaintext: bytes, key_id: str, *, context: Mapping[str, str] | None = None
    ) -> EncryptedData:
        """Encrypt ``plaintext`` (bytes-like) under ``key_id``."""
        content = _content(plaintext)

        async def call() -> EncryptedData:
            return self._owned(await self._provider.encrypt(content, key_id, context=context))

        return await self._run("encrypt", call)

    async def decrypt(self, encrypted: EncryptedData, *, context: Mapping[str, str] | None = None) -> bytes:
        """Return the plaintext; callers who ask for the same at the same time share one call."""
        foreign = self._foreign(encrypted)

        async def call() -> bytes:
            return bytes(await self._provider.decrypt(foreign, context=context))

        return await self._run(
            "decrypt", call, shared=(encrypted, None if context is None else encode_context(context))
        )

    async def _generate_data_key(
        self, key_id: str, *, context: Mapping[str, str] | None = None, key_spec: str = "AES_256"
    ) -> DataKeyPair:
        provider = cast(GeneratesDataKeys, self._provider)

        async def call() -> DataKeyPair:
            pair = await provider.generate_data_key(key_id, context=context, key_spec=key_spec)
            return replace(self._owned(pair), encrypted_key=self._owned(pair.encrypted_key))

        return await self._run("generate_data_key", call)

    async def _describe(self, key_id: str) -> KeyDescription:
        provider = cast(DescribesKeys, self._provider)

        async def call() -> KeyDescription:
            return self._owned(await provider.describe(key_id))

        return await self._run("describe", call)

    async def _rotate_key(self, key_id: str) -> KeyReference:
        """Rotate once. After an unclear failure a version that was not there before says that it happened.

        A rotation by somebody else in the meantime is taken for ours: either way there is a new version.
        """
        provider = cast(RotatesKeys, self._provider)
        describes = isinstance(self._provider, DescribesKeys)
        before = await self._describe(key_id) if describes else None

        async def call() -> KeyReference:
            return replace(await provider.rotate_key(key_id), provider=self._instance)

        try:
            return await self._run("rotate_key", call, attempts=1)
        except ProviderConnectionError as unclear:
            if before is None or before.current_version is None or not unclear.retryable:
                raise
            try:
                after = await self._describe(key_id)
            except KMSError:
                raise unclear from None
            if after.current_version in {None, before.current_version}:
                raise
            return replace(after.key_reference, key_version=after.current_version)

    async def _rewrap(self, encrypted: EncryptedData, *, context: Mapping[str, str] | None = None) -> EncryptedData:
        provider = cast(RewrapsCiphertexts, self._provider)
        foreign = self._foreign(encrypted)

        async def call() -> EncryptedData:
            return self._owned(await provider.rewrap(foreign, context=context))

        return await self._run("rewrap", call)

    def _missing_wraps(self, encrypted: EncryptedData) -> list[str]:
        return cast(KeepsWraps, self._provider).missing_wraps(self._foreign(encrypted))

    async def _check_wraps(
        self,
        encrypted: EncryptedData,
        key_id: str | None = None,
        *,
        context: Mapping[str, str] | None = None,
        opens: bool = False,
    ) -> Mapping[str, WrapState]:
        provider = cast(KeepsWraps, self._provider)
        foreign = self._foreign(encrypted)
        return await self._run(
            "check_wraps", lambda: provider.check_wraps(foreign, key_id, context=context, opens=opens)
        )

    async def _mend_wraps(
        self, encrypted: EncryptedData, key_id: str, *, context: Mapping[str, str] | None = None
    ) -> EncryptedData:
        provider = cast(KeepsWraps, self._provider)
        foreign = self._foreign(encrypted)

        async def call() -> EncryptedData:
            return self._owned(await provider.mend_wraps(foreign, key_id, context=context))

        return await self._run("mend_wraps", call)

    async def _get_rotation_policy(self, key_id: str) -> RotationPolicy:
        provider = cast(ReportsRotationPolicy, self._provider)
        return await self._run("get_rotation_policy", lambda: provider.get_rotation_policy(key_id))

    async def _encrypt_batch(
        self, plaintexts: Sequence[bytes], key_id: str, *, context: Mapping[str, str] | None = None
    ) -> list[EncryptedData]:
        provider = cast(EncryptsBatches, self._provider)
        contents = [_content(plaintext) for plaintext in plaintexts]

        async def call() -> list[EncryptedData]:
            return [self._owned(one) for one in await provider.encrypt_batch(contents, key_id, context=context)]

        return await self._run("encrypt_batch", call)

    async def _decrypt_foreign(self, encrypted: EncryptedData) -> bytes:
        provider = cast(ReadsForeignData, self._provider)
        foreign = self._foreign(encrypted)
        return await self._run("decrypt_foreign", lambda: provider.decrypt_foreign(foreign))

    async def _decrypt_texts(
        self, texts: Sequence[str], key_id: str, *, context: bytes = b"", associated_data: bytes = b""
    ) -> list[bytes | KMSError]:
        provider = cast(OpensTransitTexts, self._provider)
        return await self._run(
            "decrypt_texts",
            lambda: provider.decrypt_texts(texts, key_id, context=context, associated_data=associated_data),
        )

    async def _retire_version(self, version: int) -> None:
        provider = cast(RetiresKeyVersions, self._provider)
        await self._run("retire_version", lambda: provider.retire_version(version), attempts=1)

    async def _aclose(self) -> None:
        await self._run("aclose", cast(Closes, self._provider).aclose, attempts=1)


def _content(plaintext: object) -> bytes:
    if not isinstance(plaintext, bytes | bytearray | memoryview):
        raise InvalidInputError(
            "encrypt takes bytes; encode text first with .encode(), or use encrypt_field, which keeps the type"
        )
    return plaintext if isinstance(plaintext, bytes) else bytes(plaintext)
