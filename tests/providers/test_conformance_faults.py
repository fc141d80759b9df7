"""What every provider does alike when something goes wrong, behind the guard as everything in Keystead uses it."""

from __future__ import annotations

import asyncio
import time
from typing import cast

import pytest

from keystead.errors import KeyNotFoundError, KeyStateError, KMSError, ProviderConnectionError
from keystead.model import KeyState
from keystead.ports import DescribesKeys
from keystead.providers.guard import GuardedProvider
from tests.providers.harnesses import subjects
from tests.providers.subjects.subject import Faults, Subject

DEADLINE_S = 1.0


def guarded(subject: Subject, deadline_s: float = 10.0) -> GuardedProvider:
    return GuardedProvider(subject.provider, "cloud", deadline_s=deadline_s)


def faults(subject: Subject) -> Faults:
    assert subject.faults is not None
    return subject.faults


async def within(seconds: float, action: object) -> float:
    started = time.monotonic()
    with pytest.raises(ProviderConnectionError):
        await action  # type: ignore[misc]  # any awaitable
    taken = time.monotonic() - started
    assert taken < seconds
    return taken


@subjects(fault="throttle_next")
async def test_a_call_that_is_throttled_is_made_again(subject: Subject) -> None:
    provider = guarded(subject)
    sealed = await provider.encrypt(b"value", subject.key_id)
    faults(subject).throttle_next(2)
    assert await provider.decrypt(sealed) == b"value"


@subjects(fault="throttle_next")
async def test_a_call_that_is_throttled_every_time_is_made_three_times(subject: Subject) -> None:
    provider = guarded(subject)
    sealed = await provider.encrypt(b"value", subject.key_id)
    faults(subject).throttle_next(20)
    before = faults(subject).calls()
    with pytest.raises(ProviderConnectionError) as caught:
        await provider.decrypt(sealed)
    assert caught.value.retryable
    assert faults(subject).calls() - before == 3


@subjects(fault="fail_next")
async def test_a_call_that_failed_for_a_passing_reason_is_made_again(subject: Subject) -> None:
    provider = guarded(subject)
    sealed = await provider.encrypt(b"value", subject.key_id)
    faults(subject).fail_next(2)
    assert await provider.decrypt(sealed) == b"value"


@subjects(fault="black_hole")
async def test_a_call_without_an_answer_ends_at_its_deadline_and_the_next_one_works(subject: Subject) -> None:
    provider = guarded(subject)
    sealed = await provider.encrypt(b"value", subject.key_id)
    hasty = guarded(subject, DEADLINE_S)
    faults(subject).black_hole()
    await within(DEADLINE_S + 0.5, hasty.decrypt(sealed))
    faults(subject).heal()
    assert await provider.decrypt(sealed) == b"value"


@subjects(fault="black_hole")
async def test_a_call_that_is_cancelled_ends_at_once_and_the_next_one_works(subject: Subject) -> None:
    provider = guarded(subject)
    sealed = await provider.encrypt(b"value", subject.key_id)
    faults(subject).black_hole()
    call = asyncio.create_task(provider.decrypt(sealed))
    await asyncio.sleep(0.05)
    started = time.monotonic()
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert time.monotonic() - started < 0.5
    faults(subject).heal()
    assert await provider.decrypt(sealed) == b"value"


@subjects(fault="expire_credentials")
async def test_credentials_that_expired_are_renewed_without_an_error(subject: Subject) -> None:
    provider = guarded(subject)
    sealed = await provider.encrypt(b"value", subject.key_id)
    faults(subject).expire_credentials()
    assert await provider.decrypt(sealed) == b"value"


@subjects(DescribesKeys, fault="disable")
async def test_a_disabled_key_does_nothing_and_says_so(subject: Subject) -> None:
    provider = guarded(subject)
    sealed = await provider.encrypt(b"value", subject.key_id)
    faults(subject).disable(subject.key_id)
    with pytest.raises(KeyStateError) as caught:
        await provider.decrypt(sealed)
    assert not caught.value.retryable
    with pytest.raises(KeyStateError):
        await provider.encrypt(b"value", subject.key_id)
    description = await cast(DescribesKeys, provider).describe(subject.key_id)
    assert description.state is KeyState.DISABLED


@subjects(fault="destroy")
async def test_a_destroyed_key_is_an_error_that_is_not_tried_again(subject: Subject) -> None:
    provider = guarded(subject)
    sealed = await provider.encrypt(b"value", subject.key_id)
    faults(subject).destroy(subject.key_id)
    before = faults(subject).calls()
    with pytest.raises((KeyStateError, KeyNotFoundError)):
        await provider.decrypt(sealed)
    assert faults(subject).calls() - before <= 1


@subjects(fault="black_hole")
async def test_the_event_loop_goes_on_while_a_hundred_calls_wait(subject: Subject) -> None:
    provider = guarded(subject, DEADLINE_S)
    sealed = await provider.encrypt(b"value", subject.key_id)
    faults(subject).black_hole()
    calls = [asyncio.create_task(provider.encrypt(b"value", subject.key_id)) for _ in range(100)]
    turns, until = 0, time.monotonic() + DEADLINE_S / 2
    while time.monotonic() < until:
        await asyncio.sleep(0.001)
        turns += 1
    results = await asyncio.gather(*calls, return_exceptions=True)
    assert turns > 10  # a loop that is blocked has one
    assert all(isinstance(result, KMSError) for result in results)
    faults(subject).heal()
    assert await guarded(subject).decrypt(sealed) == b"value"
