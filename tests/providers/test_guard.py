from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, cast

import pytest

from keystead import telemetry
from keystead.errors import (
    DecryptionError,
    EncryptionError,
    InvalidInputError,
    KeyNotFoundError,
    KeyRotationError,
    KeyStateError,
    KMSError,
    ProviderAuthError,
    ProviderConnectionError,
)
from keystead.model import EncryptedData
from keystead.ports import (
    Closes,
    DescribesKeys,
    EncryptsBatches,
    GeneratesDataKeys,
    KmsProvider,
    ReportsRotationPolicy,
    RetiresKeyVersions,
    RewrapsCiphertexts,
    RotatesKeys,
)
from keystead.providers.guard import GuardedProvider
from keystead.providers.local.provider import LocalKMSConfig, LocalKMSProvider
from keystead.testing import FakeKMS
from tests.fakes.clock import FakeClock
from tests.providers.stubs import OUTAGE, Bare, Guarded, Hanging, settle

LEAST_CAPABLE = (
    GeneratesDataKeys,
    DescribesKeys,
    RotatesKeys,
    RewrapsCiphertexts,
    ReportsRotationPolicy,
    RetiresKeyVersions,
    EncryptsBatches,
    RetiresKeyVersions,
    Closes,
)


@pytest.mark.parametrize("name", ["", "a:b", ":", cast(str, None)])
def test_an_instance_name_without_text_or_with_a_colon_is_refused(kms: FakeKMS, name: str) -> None:
    with pytest.raises(InvalidInputError, match="colon"):
        GuardedProvider(kms, name)


@pytest.mark.parametrize("options", [{"deadline_s": 0}, {"deadline_s": float("nan")}, {"attempts": 0}])
def test_a_deadline_or_attempts_that_cannot_be_are_refused(kms: FakeKMS, options: dict[str, Any]) -> None:
    with pytest.raises(InvalidInputError):
        GuardedProvider(kms, "cloud", **options)


def test_it_has_the_capabilities_of_a_provider_that_has_all(guarded: Guarded) -> None:
    provider = LocalKMSProvider(LocalKMSConfig(master_key=bytes(32)))
    assert all(isinstance(GuardedProvider(provider, "local"), kind) for kind in LEAST_CAPABLE)


def test_it_has_no_capability_the_provider_has_not(kms: FakeKMS) -> None:
    guarded = GuardedProvider(Bare(kms), "bare")
    assert isinstance(guarded, KmsProvider)
    assert [kind for kind in LEAST_CAPABLE if isinstance(guarded, kind)] == []


async def test_every_answer_names_the_instance(guarded: Guarded) -> None:
    sealed = await guarded.encrypt(b"value", "key")
    pair = await guarded.generate_data_key("key")
    references = [
        sealed.key_reference,
        pair.key_reference,
        pair.encrypted_key.key_reference,
        (await guarded.describe("key")).key_reference,
        await guarded.rotate_key("key"),
        (await guarded.rewrap(sealed)).key_reference,
        (await guarded.encrypt_batch([b"value"], "key"))[0].key_reference,
    ]
    assert {reference.provider for reference in references} == {"cloud"}


async def test_the_provider_gets_its_own_name_back(kms: FakeKMS, clock: FakeClock) -> None:
    seen: list[str] = []

    class Noting(Bare):
        async def decrypt(self, encrypted: EncryptedData, *, context: Mapping[str, str] | None = None) -> bytes:
            seen.append(encrypted.key_reference.provider)
            return b""

    guarded = GuardedProvider(Noting(kms), "cloud", clock=clock)
    await guarded.decrypt(await guarded.encrypt(b"value", "key"))
    assert seen == ["bare"]


@pytest.mark.parametrize("plaintext", [b"value", bytearray(b"value"), memoryview(b"value")])
async def test_any_bytes_like_plaintext_reaches_the_provider_as_bytes(guarded: Guarded, plaintext: Any) -> None:
    assert await guarded.decrypt(await guarded.encrypt(plaintext, "key")) == b"value"


async def test_text_is_refused_before_the_provider_is_called(guarded: Guarded, kms: FakeKMS) -> None:
    with pytest.raises(InvalidInputError, match="encrypt_field"):
        await guarded.encrypt("text", "key")
    assert kms.calls == {}


async def test_a_passing_outage_is_retried(guarded: Guarded, kms: FakeKMS) -> None:
    kms.fail_next(2, OUTAGE)
    assert await guarded.decrypt(await guarded.encrypt(b"value", "key")) == b"value"
    assert kms.calls["encrypt"] == 3


async def test_an_outage_that_lasts_surfaces_as_itself_after_three_attempts(guarded: Guarded, kms: FakeKMS) -> None:
    kms.fail_always(OUTAGE)
    with pytest.raises(ProviderConnectionError, match="the network is down"):
        await guarded.encrypt(b"value", "key")
    assert kms.calls["encrypt"] == 3


@pytest.mark.parametrize(
    "error", [ProviderAuthError("denied"), KeyStateError("disabled"), KeyNotFoundError("none"), DecryptionError("no")]
)
async def test_what_a_repeat_cannot_cure_is_not_repeated(guarded: Guarded, kms: FakeKMS, error: KMSError) -> None:
    kms.fail_always(error)
    with pytest.raises(type(error)):
        await guarded.describe("key")
    assert kms.calls["describe"] == 1


async def test_pauses_are_drawn_between_nothing_and_a_doubling_ceiling(kms: FakeKMS, clock: FakeClock) -> None:
    for fraction, expected in [(b"\xff" * 4, [0.1, 0.2, 0.4]), (bytes(4), [0.0, 0.0, 0.0])]:
        clock.slept.clear()
        kms.fail_next(3, OUTAGE)
        guarded = GuardedProvider(kms, "cloud", clock=clock, attempts=4, random=lambda size, drawn=fraction: drawn)
        await guarded.encrypt(b"value", "key")
        assert clock.slept == pytest.approx(expected)


async def test_no_retry_is_begun_that_the_deadline_would_cut(kms: FakeKMS, clock: FakeClock) -> None:
    kms.fail_always(OUTAGE)
    kms.delay_s = 0.4
    guarded = GuardedProvider(
        kms, "cloud", clock=clock, deadline_s=1.0, attempts=100, random=lambda size: b"\xff" * size
    )
    with pytest.raises(ProviderConnectionError, match="the network is down"):
        await guarded.encrypt(b"value", "key")
    assert kms.calls["encrypt"] == 2


async def test_a_provider_that_hangs_is_cut_at_the_deadline(kms: FakeKMS) -> None:
    provider = Hanging(kms)
    guarded = GuardedProvider(provider, "cloud", deadline_s=0.01)
    sealed = await guarded.encrypt(b"value", "key")
    with pytest.raises(ProviderConnectionError, match=r"'cloud' did not answer decrypt within 0\.01 s"):
        await guarded.decrypt(sealed)
    await asyncio.sleep(0)
    assert provider.cancelled == 1


async def test_a_provider_that_ignores_its_cancellation_does_not_hold_the_caller(kms: FakeKMS) -> None:
    release = asyncio.Event()

    class Stubborn(Bare):
        async def encrypt(
            self, plaintext: bytes, key_id: str, *, context: Mapping[str, str] | None = None
        ) -> EncryptedData:
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                await release.wait()
            raise RuntimeError("too late to matter")

    with pytest.raises(ProviderConnectionError, match="did not answer"):
        await GuardedProvider(Stubborn(kms), "cloud", deadline_s=0.01).encrypt(b"value", "key")
    release.set()
    await asyncio.sleep(0.01)


async def test_cancelling_the_caller_cancels_the_call(kms: FakeKMS) -> None:
    provider = Hanging(kms)
    guarded = GuardedProvider(provider, "cloud")
    caller = asyncio.create_task(guarded.decrypt(await guarded.encrypt(b"value", "key")))
    await settle()
    caller.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller
    await settle()
    assert provider.cancelled == 1


async def test_a_provider_that_cancels_itself_is_a_connection_error(kms: FakeKMS) -> None:
    class SelfCancelling(Bare):
        async def decrypt(self, encrypted: EncryptedData, *, context: Mapping[str, str] | None = None) -> bytes:
            raise asyncio.CancelledError

    guarded = GuardedProvider(SelfCancelling(kms), "cloud")
    with pytest.raises(ProviderConnectionError, match="gave up"):
        await guarded.decrypt(await guarded.encrypt(b"value", "key"))


@pytest.mark.parametrize(
    ("foreign", "operation", "ours"),
    [
        (ValueError("token=hunter2"), "encrypt", EncryptionError),
        (ValueError("token=hunter2"), "encrypt_batch", EncryptionError),
        (ValueError("token=hunter2"), "generate_data_key", EncryptionError),
        (ValueError("token=hunter2"), "rewrap", EncryptionError),
        (ValueError("token=hunter2"), "decrypt", DecryptionError),
        (ValueError("token=hunter2"), "rotate_key", KeyRotationError),
        (ValueError("token=hunter2"), "describe", ProviderConnectionError),
        (ValueError("token=hunter2"), "get_rotation_policy", ProviderConnectionError),
        (OSError("token=hunter2"), "encrypt", ProviderConnectionError),
        (TimeoutError("token=hunter2"), "decrypt", ProviderConnectionError),
        (ConnectionResetError("token=hunter2"), "rotate_key", ProviderConnectionError),
        (NotImplementedError("token=hunter2"), "decrypt", DecryptionError),
    ],
)
async def test_a_foreign_exception_becomes_ours_and_leaves_only_its_class_name(
    kms: FakeKMS, guarded: Guarded, foreign: Exception, operation: str, ours: type[KMSError]
) -> None:
    sealed = await guarded.encrypt(b"value", "key")
    calls: dict[str, Callable[[], Coroutine[Any, Any, Any]]] = {
        "encrypt": lambda: guarded.encrypt(b"", "key"),
        "encrypt_batch": lambda: guarded.encrypt_batch([b""], "key"),
        "generate_data_key": lambda: guarded.generate_data_key("key"),
        "rewrap": lambda: guarded.rewrap(sealed),
        "decrypt": lambda: guarded.decrypt(sealed),
        "rotate_key": lambda: guarded.rotate_key("key"),
        "describe": lambda: guarded.describe("key"),
        "get_rotation_policy": lambda: guarded.get_rotation_policy("key"),
    }
    kms.fail_next(10, foreign, operation=operation)
    with pytest.raises(ours, match=type(foreign).__name__) as caught:
        await calls[operation]()
    assert type(caught.value) is ours
    assert "hunter2" not in str(caught.value)
    assert (caught.value.__cause__, caught.value.__context__) == (None, None)


async def test_an_answer_of_the_wrong_kind_is_an_encryption_error(kms: FakeKMS) -> None:
    class Wrong(Bare):
        async def encrypt(
            self, plaintext: bytes, key_id: str, *, context: Mapping[str, str] | None = None
        ) -> EncryptedData:
            return cast(EncryptedData, b"not what was promised")

    with pytest.raises(EncryptionError, match="AttributeError"):
        await GuardedProvider(Wrong(kms), "cloud").encrypt(b"value", "key")


async def test_retiring_and_closing_reach_the_provider(tmp_path: Any) -> None:
    provider = LocalKMSProvider(LocalKMSConfig(path=tmp_path / "kek", create=True))
    guarded: Guarded = GuardedProvider(provider, "local")
    await guarded.encrypt(b"value", "key")
    with pytest.raises(KeyStateError, match="newest"):
        await guarded.retire_version(1)
    await guarded.aclose()


def test_the_repr_names_instance_and_kind(guarded: Guarded) -> None:
    assert repr(guarded) == "GuardedProvider('cloud', fake)"
    assert (guarded.instance, guarded.provider.provider_name) == ("cloud", "fake")


@pytest.mark.parametrize("loaded", [True, False])
async def test_a_call_needs_no_thread_of_its_own(loaded: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    # As at the interpreter's exit, where an application's own hooks may still encrypt.
    monkeypatch.setattr(telemetry, "is_loaded", lambda: loaded)
    monkeypatch.setattr(asyncio, "to_thread", _no_thread)
    guard = GuardedProvider(FakeKMS(), "fake")
    assert await guard.decrypt(await guard.encrypt(b"value", "key")) == b"value"


async def _no_thread(*given: Any) -> None:
    raise RuntimeError("can't start new thread")
