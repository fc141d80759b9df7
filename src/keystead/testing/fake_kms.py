"""A KMS in memory for tests: real encryption, key versions, and failures at the turn of a switch.

>>> import asyncio
>>> from keystead.errors import ProviderConnectionError
>>> kms = FakeKMS()
>>> provider = kms.provider("cloud")
>>> async def outage():
...     sealed = await provider.encrypt(b"card number", "billing", context={"tenant": "north"})
...     kms.fail_next(1, ProviderConnectionError("the network is down"))
...     try:
...         await provider.decrypt(sealed)
...     except ProviderConnectionError:
...         print("failed once")
...     return await provider.decrypt(sealed)
>>> asyncio.run(outage())
failed once
b'card number'
>>> kms.calls["encrypt"], kms.calls["decrypt"]
(1, 2)
"""

from __future__ import annotations

import os
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from keystead.errors import (
    DecryptionError,
    KeyNotFoundError,
    KeyStateError,
    ProviderAuthError,
    ProviderConnectionError,
)
from keystead.model import (
    DataKeyPair,
    EncryptedData,
    KeyDescription,
    KeyPurpose,
    KeyReference,
    KeyState,
    RotationPolicy,
    SecretBytes,
)
from keystead.ports import Clock, Random
from keystead.providers.inputs import data_key_size, recorded_key
from keystead.providers.local.kek import (
    ALGORITHM,
    KEY_SIZE,
    KekVersion,
    LocalKek,
    encode_key_id,
    version_of,
)
from keystead.runtime.clock import SystemClock
from keystead.testing.fake_insight import FakeInsight
from keystead.testing.fake_signing import ALGORITHM_OF, FakeSigning


@dataclass(slots=True)
class _Key:
    versions: list[KekVersion]
    state: KeyState = KeyState.ENABLED
    purpose: KeyPurpose = KeyPurpose.ENCRYPT_DECRYPT
    kek: LocalKek = field(init=False)

    def __post_init__(self) -> None:
        self.kek = LocalKek(self.versions)

    def add(self, version: KekVersion) -> None:
        self.versions.append(version)
        self.kek = LocalKek(self.versions)


class FakeKMSProvider(FakeSigning, FakeInsight):
    """One client of a ``FakeKMS``, with every capability a provider may have. Clients of one service share its keys."""

    def __init__(self, service: FakeKMS, name: str) -> None:
        self._service = service
        self._name = name

    def __repr__(self) -> str:
        return f"FakeKMSProvider({self._name!r})"

    @property
    def provider_name(self) -> str:
        """The name this client was made with."""
        return self._name

    async def encrypt(
        self, plaintext: bytes, key_id: str, *, context: Mapping[str, str] | None = None
    ) -> EncryptedData:
        """Encrypt under the newest version of ``key_id``, which is made if the service makes keys."""
        await self._service.take_call("encrypt")
        return self._seal(plaintext, key_id, context)

    async def decrypt(self, encrypted: EncryptedData, *, context: Mapping[str, str] | None = None) -> bytes:
        """Return the plaintext, or raise ``DecryptionError``."""
        await self._service.take_call("decrypt")
        return self._open(encrypted, context)

    async def generate_data_key(
        self, key_id: str, *, context: Mapping[str, str] | None = None, key_spec: str = "AES_256"
    ) -> DataKeyPair:
        """Draw a data key and return it in clear and wrapped."""
        await self._service.take_call("generate_data_key")
        plaintext = self._service.random(data_key_size(key_spec))
        encrypted = self._seal(plaintext, key_id, context)
        return DataKeyPair(SecretBytes(plaintext), encrypted, encrypted.key_reference)

    async def encrypt_batch(
        self, plaintexts: Sequence[bytes], key_id: str, *, context: Mapping[str, str] | None = None
    ) -> list[EncryptedData]:
        """Encrypt several plaintexts in one call."""
        await self._service.take_call("encrypt_batch")
        return [self._seal(plaintext, key_id, context) for plaintext in plaintexts]

    async def rewrap(self, encrypted: EncryptedData, *, context: Mapping[str, str] | None = None) -> EncryptedData:
        """Return the same plaintext under the key's newest version."""
        await self._service.take_call("rewrap")
        context = encrypted.context if context is None else context
        return self._seal(self._open(encrypted, context), encrypted.key_reference.key_id, context)

    async def describe(self, key_id: str) -> KeyDescription:
        """Return state and newest version; a disabled key can be described too."""
        await self._service.take_call("describe")
        answered, key = self._service.key(key_id, any_state=True)
        created_at = key.versions[0].created_at
        reference = KeyReference(
            self._name, answered, purpose=key.purpose, created_at=created_at, key_version=str(key.kek.newest)
        )
        algorithms = () if key.purpose is KeyPurpose.ENCRYPT_DECRYPT else (ALGORITHM_OF[key.purpose],)
        return KeyDescription(reference, key.state, created_at, str(key.kek.newest), algorithms)

    async def rotate_key(self, key_id: str) -> KeyReference:
        """Add a version; with ``unclear_rotate`` on, raise after having done so."""
        await self._service.take_call("rotate_key")
        answered, version = self._service.rotate(key_id)
        if self._service.unclear_rotate:
            raise ProviderConnectionError("the connection broke before the answer arrived")
        return KeyReference(self._name, answered, created_at=version.created_at, key_version=str(version.number))

    async def get_rotation_policy(self, key_id: str) -> RotationPolicy:
        """Return a policy of 365 days that counts from the newest version."""
        await self._service.take_call("get_rotation_policy")
        _, key = self._service.key(key_id)
        last = key.versions[-1].created_at if len(key.versions) > 1 else None
        return RotationPolicy(rotation_period=timedelta(days=365), last_rotation=last)

    async def aclose(self) -> None:
        """Do nothing but count: the service goes on."""
        self._service.calls["aclose"] += 1

    def _seal(self, plaintext: bytes, key_id: str, context: Mapping[str, str] | None) -> EncryptedData:
        answered, key = self._service.key(key_id)
        ciphertext = key.kek.seal(plaintext, answered, context, random=self._service.random)
        return EncryptedData(
            ciphertext=ciphertext,
            key_reference=KeyReference(self._name, answered, key_version=str(version_of(ciphertext))),
            algorithm=ALGORITHM,
            encrypted_at=self._service.clock.now(),
            context=context or {},
        )

    def _open(self, encrypted: EncryptedData, context: Mapping[str, str] | None) -> bytes:
        if encrypted.algorithm != ALGORITHM:
            raise DecryptionError("decryption failed")
        answered, key = recorded_key(encrypted, lambda key_id: self._service.key(key_id, is_new_allowed=False))
        return key.kek.open(encrypted.ciphertext, answered, encrypted.context if context is None else context)


class FakeKMS(FakeKMSProvider):
    """The service, and a provider of its own. Nothing outlives it.

    Args:
        keys: the key ids that exist; by default every key id is made at its first use (never by a decrypt).
        name: ``provider_name`` of the service used as a provider; ``provider(name)`` gives more clients.
        random: where keys and nonces come from; with ``random.Random(7).randbytes`` a test repeats exactly.
        clock: tells ``created_at`` and ``encrypted_at``, waits ``delay_s``, and counts the seconds of ``throttle``.

    Attributes:
        calls: how often each operation was called, failures included.
        delay_s: how long every call waits before anything else.
        unclear_rotate: whether ``rotate_key`` raises after it has rotated.
        clock_skew_s: how far the service's own clock is ahead of ``clock``; it can be behind, too.
    """

    def __init__(
        self,
        *,
        keys: Sequence[str] | None = None,
        name: str = "fake",
        random: Random = os.urandom,
        clock: Clock | None = None,
    ) -> None:
        super().__init__(self, name)
        self.random = random
        self.clock = clock or SystemClock()
        self.calls: Counter[str] = Counter()
        self.delay_s = 0.0
        self.unclear_rotate = False
        self._keys: dict[str, _Key] = {}
        self._aliases: dict[str, str] = {}
        self._makes_keys = keys is None
        self._next_failures: deque[tuple[str | None, Exception]] = deque()
        self._failure: Exception | None = None
        self._denied: frozenset[str] | None = None
        self.clock_skew_s = 0.0
        self._rate: int | None = None
        self._recent: deque[float] = deque()
        for key_id in keys or ():
            self.create_key(key_id)

    def __repr__(self) -> str:
        return f"FakeKMS({len(self._keys)} keys hidden)"

    def provider(self, name: str = "fake") -> FakeKMSProvider:
        """Return a client called ``name`` (its ``provider_name``)."""
        return FakeKMSProvider(self, name)

    def create_key(self, key_id: str, *, purpose: KeyPurpose = KeyPurpose.ENCRYPT_DECRYPT) -> None:
        """Make a key; no effect if it exists. ``purpose`` is what ``describe`` says; every key does everything."""
        if key_id not in self._keys:
            self._keys[key_id] = _Key([self._draw(1)], purpose=purpose)

    def add_alias(self, alias: str, key_id: str) -> None:
        """Let ``alias`` name ``key_id``, now or instead of another; answers name the key id, never the alias."""
        self._aliases[alias] = key_id

    def fail_next(self, count: int, error: Exception, *, operation: str | None = None) -> None:
        """Raise ``error`` in the next ``count`` calls, of any operation or of one."""
        self._next_failures.extend([(operation, error)] * count)

    def fail_always(self, error: Exception | None = None) -> None:
        """Raise ``error`` (by default: unreachable) in every call until ``heal``."""
        self._failure = error or ProviderConnectionError("the fake KMS is unreachable")

    def deny(self, *operations: str) -> None:
        """Answer these operations, every one if none is named, with ``ProviderAuthError`` until ``heal``."""
        self._denied = frozenset(operations)

    def is_denied(self, operation: str) -> bool:
        """Whether ``deny`` stands against an operation."""
        return self._denied is not None and (not self._denied or operation in self._denied)

    def throttle(self, rate: int) -> None:
        """Let ``rate`` calls a second through and refuse the others as throttled, until ``heal``."""
        self._rate = rate
        self._recent.clear()

    def disable(self, key_id: str | None = None) -> None:
        """Disable one key or, without ``key_id``, all that exist; it can be described and does nothing else."""
        self._set_state(key_id, KeyState.DISABLED)

    def enable(self, key_id: str | None = None) -> None:
        """Enable one key or all."""
        self._set_state(key_id, KeyState.ENABLED)

    def destroy(self, key_id: str) -> None:
        """Destroy a key for good: it can be described, and nothing else."""
        self._set_state(key_id, KeyState.DESTROYED)

    def heal(self) -> None:
        """Turn every failure off: everything set by the methods and attributes above."""
        self._next_failures.clear()
        self._failure, self._denied, self._rate = None, None, None
        self.delay_s, self.unclear_rotate, self.clock_skew_s = 0.0, False, 0.0
        self.enable()

    async def take_call(self, operation: str) -> None:
        """Count a call, and wait or fail as the switches say."""
        self.calls[operation] += 1
        if self.delay_s:
            await self.clock.sleep(self.delay_s)
        for index, (only, error) in enumerate(self._next_failures):
            if only in {None, operation}:
                del self._next_failures[index]
                raise error
        if self._failure is not None:
            raise self._failure
        if self.is_denied(operation):
            raise ProviderAuthError("the fake KMS denies the call")
        self._take_turn()

    def key(self, key_id: str, *, any_state: bool = False, is_new_allowed: bool = True) -> tuple[str, _Key]:
        """Return a key with its id as the service answers it.

        Raises:
            InvalidInputError: this is no key id.
        KeyNotFoundError: there is none, and it is not made.
            KeyStateError: it is disabled or destroyed.
        """
        encode_key_id(key_id)
        answered = self._aliases.get(key_id, key_id)
        if is_new_allowed and self._makes_keys and answered not in self._keys:
            self.create_key(answered)
        key = self._keys.get(answered)
        if key is None:
            raise KeyNotFoundError("the fake KMS has no key of that id")
        if key.state is not KeyState.ENABLED and not any_state:
            raise KeyStateError(f"the key is {key.state}")
        return answered, key

    def versions(self, key_id: str) -> tuple[str, list[KekVersion]]:
        """Return a key's id and its versions, oldest first; errors as ``key``."""
        answered, key = self.key(key_id)
        return answered, key.versions

    def rotate(self, key_id: str) -> tuple[str, KekVersion]:
        """Add a version to a key and return the key's id and the version."""
        answered, key = self.key(key_id)
        version = self._draw(key.kek.newest + 1)
        key.add(version)
        return answered, version

    def _draw(self, number: int) -> KekVersion:
        created_at: datetime = self.clock.now()
        return KekVersion(number, SecretBytes(self.random(KEY_SIZE)), created_at)

    def _set_state(self, key_id: str | None, state: KeyState) -> None:
        keys = self._keys.values() if key_id is None else [self.key(key_id, any_state=True)[1]]
        for key in keys:
            if key.state is not KeyState.DESTROYED:
                key.state = state

    def _take_turn(self) -> None:
        if self._rate is None:
            return
        now = self.clock.monotonic()
        while self._recent and now - self._recent[0] >= 1.0:
            self._recent.popleft()
        if len(self._recent) >= self._rate:
            raise ProviderConnectionError("the fake KMS throttles the call")
        self._recent.append(now)
