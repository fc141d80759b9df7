"""The guard: deadline, retries, single flight, error mapping and metrics around any provider, written once.

Retries are a loop of a few lines instead of stamina's: stamina waits on the event loop's own clock, draws its jitter
from the global generator and adds it to the pause, while the guard waits on the injected clock and draws the whole
pause at random (full jitter), so that clients of one outage do not come back together and tests need no waiting.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final, TypeVar, cast

from keystead import telemetry
from keystead.crypto.context import encode_context
from keystead.errors import (
    DecryptionError,
    EncryptionError,
    InvalidInputError,
    KeyRotationError,
    KMSError,
    ProviderConnectionError,
)
from keystead.model import DataKeyPair, EncryptedData, KeyDescription, KeyReference, RotationPolicy
from keystead.ports import (
    Clock,
    Closes,
    DescribesKeys,
    EncryptsBatches,
    GeneratesDataKeys,
    KmsProvider,
    Random,
    ReadsForeignData,
    ReportsRotationPolicy,
    RetiresKeyVersions,
    RewrapsCiphertexts,
    RotatesKeys,
)
from keystead.runtime.clock import SystemClock
from keystead.runtime.single_flight import SingleFlight

T = TypeVar("T")

FIRST_PAUSE_S: Final = 0.1
LONGEST_PAUSE_S: Final = 2.0


_CAPABILITIES: Final[Mapping[str, type]] = {
    "generate_data_key": GeneratesDataKeys,
    "describe": DescribesKeys,
    "rotate_key": RotatesKeys,
    "rewrap": RewrapsCiphertexts,
    "get_rotation_policy": ReportsRotationPolicy,
    "encrypt_batch": EncryptsBatches,
    "decrypt_foreign": ReadsForeignData,
    "retire_version": RetiresKeyVersions,
    "aclose": Closes,
}

_FOREIGN: Final[Mapping[str, type[KMSError]]] = {
    "encrypt": EncryptionError,
    "encrypt_batch": EncryptionError,
    "generate_data_key": EncryptionError,
    "rewrap": EncryptionError,
    "decrypt": DecryptionError,
    "decrypt_foreign": DecryptionError,
    "rotate_key": KeyRotationError,
    "retire_version": KeyRotationError,
}
"""What an exception that is not ours becomes; for the other operations, and for OSError, ProviderConnectionError."""


class GuardedProvider:
    """A provider instance as the rest of Keystead sees it.

    It has the capabilities of the provider inside, no more and no fewer: ``isinstance(guarded, RotatesKeys)`` asks
    the provider. Every answer names the instance in its ``key_reference``. Every call ends within ``deadline_s``
    (real seconds, all attempts together) with a result or one of Keystead's errors; of a foreign exception only the
    class's name is kept.

    ``attempts`` is for calls that may be repeated; ``rotate_key`` is made once, and where its outcome is unclear,
    ``describe`` decides.

    Raises:
        InvalidInputError: an instance name that is empty or holds a colon, or a deadline or attempts that cannot be.
    """

    def __init__(
        self,
        provider: KmsProvider,
        instance: str,
        *,
        clock: Clock | None = None,
        deadline_s: float = 10.0,
        attempts: int = 3,
        random: Random = os.urandom,
    ) -> None:
        if not isinstance(instance, str) or not instance or ":" in instance:
            raise InvalidInputError("a provider instance's name is a text that is not empty and has no colon")
        if not deadline_s > 0 or attempts < 1:
            raise InvalidInputError("a provider's deadline is longer than zero, and it gets at least one attempt")
        self._provider = provider
        self._instance = instance
        self._clock = clock or SystemClock()
        self._deadline_s = deadline_s
        self._attempts = attempts
        self._random = random
        self._unwraps: SingleFlight[bytes] = SingleFlight()
        for method, capability in _CAPABILITIES.items():
            if isinstance(provider, capability):
                # On the object, not the class: isinstance with a runtime protocol looks for the attribute.
                setattr(self, method, getattr(self, f"_{method}"))

    def __repr__(self) -> str:
        return f"GuardedProvider({self._instance!r}, {self.provider_name})"

    @property
    def provider_name(self) -> str:
        """The provider's kind."""
        return self._provider.provider_name

    @property
    def instance(self) -> str:
        """The name records know this instance by."""
        return self._instance

    @property
    def provider(self) -> KmsProvider:
        """The provider inside, without the guard."""
        return self._provider

    async def encrypt(
        self, plaintext: bytes, key_id: str, *, context: Mapping[str, str] | None = None
    ) -> EncryptedData:
        """Encrypt ``plaintext`` (bytes-like) under ``key_id``."""
        content = _content(plaintext)

        async def call() -> EncryptedData:
            return self._named(await self._provider.encrypt(content, key_id, context=context))

        return await self._run("encrypt", call)

    async def decrypt(self, encrypted: EncryptedData, *, context: Mapping[str, str] | None = None) -> bytes:
        """Return the plaintext; callers who ask for the same at the same time share one call."""
        foreign = self._foreign(encrypted)

        async def call() -> bytes:
            return bytes(await self._provider.decrypt(foreign, context=context))

        key = (encrypted, None if context is None else encode_context(context))
        return await self._unwraps.run(key, lambda: self._run("decrypt", call))

    async def _generate_data_key(
        self, key_id: str, *, context: Mapping[str, str] | None = None, key_spec: str = "AES_256"
    ) -> DataKeyPair:
        provider = cast(GeneratesDataKeys, self._provider)

        async def call() -> DataKeyPair:
            pair = await provider.generate_data_key(key_id, context=context, key_spec=key_spec)
            named = self._named(pair.encrypted_key)
            return replace(pair, encrypted_key=named, key_reference=self._owned(pair.key_reference))

        return await self._run("generate_data_key", call)

    async def _describe(self, key_id: str) -> KeyDescription:
        provider = cast(DescribesKeys, self._provider)

        async def call() -> KeyDescription:
            description = await provider.describe(key_id)
            return replace(description, key_reference=self._owned(description.key_reference))

        return await self._run("describe", call)

    async def _rotate_key(self, key_id: str) -> KeyReference:
        """Rotate once. After an unclear failure a version that was not there before says that it happened.

        A rotation by somebody else in the meantime is taken for ours: either way there is a new version.
        """
        provider = cast(RotatesKeys, self._provider)
        describes = isinstance(self._provider, DescribesKeys)
        before = await self._describe(key_id) if describes else None

        async def call() -> KeyReference:
            return self._owned(await provider.rotate_key(key_id))

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
            return self._named(await provider.rewrap(foreign, context=context))

        return await self._run("rewrap", call)

    async def _get_rotation_policy(self, key_id: str) -> RotationPolicy:
        provider = cast(ReportsRotationPolicy, self._provider)
        return await self._run("get_rotation_policy", lambda: provider.get_rotation_policy(key_id))

    async def _encrypt_batch(
        self, plaintexts: Sequence[bytes], key_id: str, *, context: Mapping[str, str] | None = None
    ) -> list[EncryptedData]:
        provider = cast(EncryptsBatches, self._provider)
        contents = [_content(plaintext) for plaintext in plaintexts]

        async def call() -> list[EncryptedData]:
            return [self._named(one) for one in await provider.encrypt_batch(contents, key_id, context=context)]

        return await self._run("encrypt_batch", call)

    async def _decrypt_foreign(self, encrypted: EncryptedData) -> bytes:
        provider = cast(ReadsForeignData, self._provider)
        foreign = self._foreign(encrypted)
        return await self._run("decrypt_foreign", lambda: provider.decrypt_foreign(foreign))

    async def _retire_version(self, version: int) -> None:
        provider = cast(RetiresKeyVersions, self._provider)
        await self._run("retire_version", lambda: provider.retire_version(version), attempts=1)

    async def _aclose(self) -> None:
        await self._run("aclose", cast(Closes, self._provider).aclose, attempts=1)

    async def _run(self, operation: str, call: Callable[[], Awaitable[T]], *, attempts: int | None = None) -> T:
        """Make the call within the deadline, repeating it where that may help."""
        is_late = False

        async def attempt() -> T:
            started, result = self._clock.monotonic(), "ok"
            try:
                return await call()
            except asyncio.CancelledError:
                result = "deadline" if is_late else "cancelled"
                raise
            except Exception as exc:
                error = self._ours(operation, exc)
                result = error.code
            finally:
                telemetry.kms_call(self._instance, operation, result, self._clock.monotonic() - started)
            # Outside the except block: a foreign exception must not travel on as the context of ours.
            raise error

        work = asyncio.ensure_future(self._repeat(attempt, attempts or self._attempts))
        work.add_done_callback(_mark_seen)
        try:
            done, _ = await asyncio.wait({work}, timeout=self._deadline_s)
        except asyncio.CancelledError:
            work.cancel()
            raise
        if not done:
            is_late = True
            work.cancel()
            raise ProviderConnectionError(
                f"the provider {self._instance!r} did not answer {operation} within {self._deadline_s:g} s"
            )
        if work.cancelled():
            raise ProviderConnectionError(f"the provider {self._instance!r} gave up {operation}: CancelledError")
        return work.result()

    async def _repeat(self, attempt: Callable[[], Awaitable[T]], attempts: int) -> T:
        give_up_at = self._clock.monotonic() + self._deadline_s
        for number in range(1, attempts):
            try:
                return await attempt()
            except KMSError as error:
                pause_s = self._pause_s(number)
                if not error.retryable or self._clock.monotonic() + pause_s >= give_up_at:
                    raise
            await self._clock.sleep(pause_s)
        return await attempt()

    def _pause_s(self, failures: int) -> float:
        """Draw a pause between nothing and a ceiling that doubles with every failure."""
        ceiling = min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2.0 ** (failures - 1))
        return float(ceiling * int.from_bytes(self._random(4), "big") / 2**32)

    def _ours(self, operation: str, exc: Exception) -> KMSError:
        if isinstance(exc, KMSError):
            return exc
        error = _FOREIGN.get(operation, ProviderConnectionError)
        if isinstance(exc, OSError):
            error = ProviderConnectionError
        return error(f"the provider {self._instance!r} failed {operation}: {type(exc).__name__}")

    def _owned(self, reference: KeyReference) -> KeyReference:
        return replace(reference, provider=self._instance)

    def _named(self, encrypted: EncryptedData) -> EncryptedData:
        return replace(encrypted, key_reference=self._owned(encrypted.key_reference))

    def _foreign(self, encrypted: EncryptedData) -> EncryptedData:
        """Return ``encrypted`` as the provider gave it: under its own name instead of the instance's."""
        reference = replace(encrypted.key_reference, provider=self.provider_name)
        return replace(encrypted, key_reference=reference)


def _content(plaintext: object) -> bytes:
    if not isinstance(plaintext, bytes | bytearray | memoryview):
        raise InvalidInputError(
            "encrypt takes bytes; encode text first with .encode(), or use encrypt_field, which keeps the type"
        )
    return plaintext if isinstance(plaintext, bytes) else bytes(plaintext)


def _mark_seen(work: asyncio.Future[Any]) -> None:
    """Take note of an outcome that nobody waits for any more, so that asyncio does not report it."""
    if not work.cancelled():
        work.exception()
