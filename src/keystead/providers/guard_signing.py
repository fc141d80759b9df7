"""The guard's half for MACs, signatures and what a doctor asks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Final, cast

from keystead.model import PublicKey, Signature, SignatureAlgorithm
from keystead.ports import (
    ChecksPermissions,
    ComputesMacBatches,
    ComputesMacs,
    ListsKeyVersions,
    SignsBatches,
    SignsMessages,
    TellsExtractability,
    TellsTime,
)
from keystead.providers.guarded_calls import GuardedCalls
from keystead.providers.inputs import message_bytes

CAPABILITIES: Final[Mapping[str, type]] = {
    "mac": ComputesMacs,
    "verify_mac": ComputesMacs,
    "mac_batch": ComputesMacBatches,
    "sign": SignsMessages,
    "public_key": SignsMessages,
    "sign_batch": SignsBatches,
    "key_versions": ListsKeyVersions,
    "check_permissions": ChecksPermissions,
    "service_time": TellsTime,
    "is_extractable": TellsExtractability,
}


class GuardedSigning(GuardedCalls):
    """What ``GuardedProvider`` puts in front of a provider's own methods; see there."""

    async def _mac(self, message: bytes, key_id: str, *, algorithm: SignatureAlgorithm | None = None) -> Signature:
        provider, content = cast(ComputesMacs, self._provider), message_bytes(message)

        async def call() -> Signature:
            return self._owned(await provider.mac(content, key_id, algorithm=algorithm))

        return await self._run("mac", call)

    async def _verify_mac(self, message: bytes, mac: Signature) -> None:
        provider, content = cast(ComputesMacs, self._provider), message_bytes(message)
        foreign = self._foreign(mac)
        await self._run("verify_mac", lambda: provider.verify_mac(content, foreign))

    async def _mac_batch(
        self, messages: Sequence[bytes], key_id: str, *, algorithm: SignatureAlgorithm | None = None
    ) -> list[Signature]:
        provider = cast(ComputesMacBatches, self._provider)
        contents = [message_bytes(message) for message in messages]

        async def call() -> list[Signature]:
            return [self._owned(each) for each in await provider.mac_batch(contents, key_id, algorithm=algorithm)]

        return await self._run("mac_batch", call)

    async def _sign(self, message: bytes, key_id: str, *, algorithm: SignatureAlgorithm | None = None) -> Signature:
        provider, content = cast(SignsMessages, self._provider), message_bytes(message)

        async def call() -> Signature:
            return self._owned(await provider.sign(content, key_id, algorithm=algorithm))

        return await self._run("sign", call)

    async def _public_key(self, key_id: str, *, version: str | None = None) -> PublicKey:
        provider = cast(SignsMessages, self._provider)

        async def call() -> PublicKey:
            return self._owned(await provider.public_key(key_id, version=version))

        return await self._run("public_key", call)

    async def _sign_batch(
        self, messages: Sequence[bytes], key_id: str, *, algorithm: SignatureAlgorithm | None = None
    ) -> list[Signature]:
        provider = cast(SignsBatches, self._provider)
        contents = [message_bytes(message) for message in messages]

        async def call() -> list[Signature]:
            return [self._owned(each) for each in await provider.sign_batch(contents, key_id, algorithm=algorithm)]

        return await self._run("sign_batch", call)

    async def _key_versions(self, key_id: str) -> list[str]:
        provider = cast(ListsKeyVersions, self._provider)
        return await self._run("key_versions", lambda: provider.key_versions(key_id))

    async def _check_permissions(self, key_id: str, *, context: Mapping[str, str] | None = None) -> Mapping[str, bool]:
        provider = cast(ChecksPermissions, self._provider)
        return await self._run("check_permissions", lambda: provider.check_permissions(key_id, context=context))

    async def _service_time(self) -> datetime:
        provider = cast(TellsTime, self._provider)
        return await self._run("service_time", provider.service_time)

    async def _is_extractable(self, key_id: str) -> bool:
        provider = cast(TellsExtractability, self._provider)
        return await self._run("is_extractable", lambda: provider.is_extractable(key_id))
