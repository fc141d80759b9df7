"""Opening by the first member that answers, and what it says when none does."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable

import pytest

from keystead.errors import (
    ConfigurationError,
    DecryptionError,
    KeyNotFoundError,
    KeyStateError,
    KMSError,
    ProviderAuthError,
    ProviderConnectionError,
    ProviderNotConfiguredError,
)
from keystead.providers.multi.provider import MultiKMSProvider
from keystead.testing import FakeKMS
from tests.fakes.clock import FakeClock
from tests.providers.multi.sets import CONTEXT, KEY_ID, Keks
from tests.providers.stubs import Hanging, settle

DOWN: list[Callable[[FakeKMS], None]] = [
    lambda kms: kms.fail_always(),
    lambda kms: kms.deny(),
    lambda kms: kms.disable("kek"),
    lambda kms: kms.destroy("kek"),
    lambda kms: kms.fail_always(KeyNotFoundError("gone")),
    lambda kms: kms.fail_always(ConfigurationError("the KEK file may be read by others")),
    lambda kms: kms.fail_always(DecryptionError("decryption failed")),
    lambda kms: setattr(kms, "delay_s", 3600.0),
]
KINDS = ["unreachable", "denied", "disabled", "destroyed", "gone", "misconfigured", "refusing", "silent"]


@pytest.mark.parametrize("take_down", DOWN, ids=KINDS)
@pytest.mark.parametrize("survivor", ["a", "b", "c"])
async def test_any_one_member_that_is_left_opens_it(take_down: Callable[[FakeKMS], None], survivor: str) -> None:
    keks = Keks()
    sealed = await keks.all_together().encrypt(b"value", KEY_ID, context=CONTEXT)
    for name in keks.names:
        if name != survivor:
            take_down(keks[name])
    assert await asyncio.wait_for(keks.all_together().decrypt(sealed), 5.0) == b"value"


async def test_members_are_asked_in_the_order_of_the_configuration_and_only_the_first_if_it_answers() -> None:
    keks = Keks()
    sealed = await keks.all_together().encrypt(b"value", KEY_ID)
    for order in itertools.permutations(keks.names):
        keks.forget_calls()
        await keks.all_together(*order, pause_s=3600.0).decrypt(sealed)
        assert keks.calls("decrypt") == {order[0]: 1}


async def test_the_next_member_is_asked_when_the_first_has_not_answered_for_a_while_by_the_sets_own_clock() -> None:
    clock = FakeClock(instant=False)
    keks = Keks(("slow", "quick"))
    sealed = await keks.all_together().encrypt(b"value", KEY_ID)
    slow = Hanging(keks["slow"])
    provider = MultiKMSProvider({"slow": slow, "quick": keks["quick"].provider()}, clock=clock, pause_s=0.5)
    keks.forget_calls()
    reading = asyncio.create_task(provider.decrypt(sealed))
    await settle()
    assert (slow.started, keks.calls("decrypt")) == (1, {})
    clock.advance(0.4)
    await settle()
    assert keks.calls("decrypt") == {}
    clock.advance(0.2)
    assert await reading == b"value"
    assert keks.calls("decrypt") == {"quick": 1}
    assert slow.cancelled == 1


async def test_a_slow_member_that_answers_first_after_all_is_taken_and_the_other_cancelled() -> None:
    keks = Keks(("slow", "slower"))
    sealed = await keks.all_together().encrypt(b"value", KEY_ID)
    slow, slower = Hanging(keks["slow"]), Hanging(keks["slower"])
    clock = FakeClock(instant=False)
    reading = asyncio.create_task(MultiKMSProvider({"slow": slow, "slower": slower}, clock=clock).decrypt(sealed))
    await settle()
    clock.advance(1.0)
    await settle()
    assert slower.started == 1
    slow.gate.set()
    assert await reading == b"value"
    assert (slow.cancelled, slower.cancelled) == (0, 1)


async def test_a_failure_does_not_wait_for_the_pause() -> None:
    keks = Keks()
    sealed = await keks.all_together().encrypt(b"value", KEY_ID)
    keks["a"].deny()
    provider = keks.all_together(pause_s=3600.0)
    assert await asyncio.wait_for(provider.decrypt(sealed), 60.0) == b"value"
    assert keks.calls("decrypt") == {"a": 1, "b": 1}


async def test_whoever_gives_up_cancels_every_member() -> None:
    keks = Keks(("a", "b"))
    sealed = await keks.all_together().encrypt(b"value", KEY_ID)
    hanging = [Hanging(keks[name]) for name in keks.names]
    clock = FakeClock(instant=False)
    provider = MultiKMSProvider(dict(zip(keks.names, hanging, strict=True)), clock=clock)
    reading = asyncio.create_task(provider.decrypt(sealed))
    await settle()
    clock.advance(1.0)
    await settle()
    assert [member.started for member in hanging] == [1, 1]
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
    await settle()
    assert [member.cancelled for member in hanging] == [1, 1]


async def test_a_member_gets_no_more_than_its_share_of_the_time() -> None:
    keks = Keks(("a", "b"))
    sealed = await keks.all_together().encrypt(b"value", KEY_ID)
    for name in keks.names:
        keks[name].delay_s = 3600.0
    with pytest.raises(ProviderConnectionError, match=r"a: .* within 0\.05 s; b: .* within 0\.05 s"):
        await asyncio.wait_for(keks.all_together(deadline_s=0.05).decrypt(sealed), 60.0)


async def test_a_member_that_has_no_wrap_is_not_asked() -> None:
    keks = Keks()
    sealed = await keks.all_together("b").encrypt(b"value", KEY_ID)
    keks.forget_calls()
    assert await keks.all_together().decrypt(sealed) == b"value"
    assert keks.calls("decrypt") == {"b": 1}


async def test_wraps_of_former_members_are_passed_over() -> None:
    keks = Keks()
    sealed = await keks.all_together().encrypt(b"value", KEY_ID)
    assert await keks.all_together("c").decrypt(sealed) == b"value"


async def test_a_ciphertext_of_other_members_alone_names_them() -> None:
    keks = Keks()
    sealed = await keks.all_together("a", "b").encrypt(b"value", KEY_ID)
    with pytest.raises(ProviderNotConfiguredError, match="'a', 'b'"):
        await keks.all_together("c").decrypt(sealed)


@pytest.mark.parametrize(
    ("failures", "told"),
    [
        ([ProviderAuthError("x"), ProviderConnectionError("x")], ProviderConnectionError),
        ([DecryptionError("x"), ProviderConnectionError("x")], ProviderConnectionError),
        ([ProviderAuthError("x"), DecryptionError("x")], DecryptionError),
        ([KeyNotFoundError("x"), KeyStateError("x")], KeyStateError),
        ([ProviderAuthError("x"), KeyNotFoundError("x")], KeyNotFoundError),
        ([ConfigurationError("x"), ProviderAuthError("x")], ProviderAuthError),
        ([ConfigurationError("x"), ConfigurationError("x")], ConfigurationError),
        ([KMSError("x"), KMSError("x")], KMSError),
    ],
)
async def test_the_most_telling_failure_is_raised_and_every_member_is_named(
    failures: list[KMSError], told: type[KMSError]
) -> None:
    keks = Keks(("a", "b"))
    sealed = await keks.all_together().encrypt(b"value", KEY_ID)
    for name, failure in zip(keks.names, failures, strict=True):
        keks[name].fail_always(failure)
    with pytest.raises(KMSError, match=r"a: .*; b: ") as caught:
        await keks.all_together(clock=FakeClock()).decrypt(sealed)
    assert type(caught.value) is told
    assert caught.value.retryable is any(failure.retryable for failure in failures)


async def test_another_context_is_one_error_whoever_is_asked() -> None:
    keks = Keks()
    sealed = await keks.all_together().encrypt(b"value", KEY_ID, context=CONTEXT)
    for context in ({}, {**CONTEXT, "more": "x"}, {"keystead.commitment": "00"}):
        with pytest.raises(DecryptionError):
            await keks.all_together().decrypt(sealed, context=context)


async def test_two_event_loops_use_one_set() -> None:
    keks = Keks()
    provider = keks.all_together()
    sealed = await provider.encrypt(b"value", KEY_ID)
    elsewhere = await asyncio.to_thread(lambda: asyncio.run(provider.decrypt(sealed)))
    assert elsewhere == await provider.decrypt(sealed) == b"value"
