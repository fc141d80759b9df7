"""What every provider does alike when something goes wrong, behind the guard as everything in Keystead uses it."""

from __future__ import annotations

import asyncio
import os
import time
import traceback
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import cast

import pytest

from keystead.errors import DecryptionError, KeyNotFoundError, KeyStateError, KMSError, ProviderConnectionError
from keystead.model import KeyState, SecretBytes
from keystead.ports import DescribesKeys, GeneratesDataKeys
from keystead.providers.guard import GuardedProvider
from tests.canary.watch import SecretWatch, learning
from tests.providers.harnesses import HARNESSES, subjects
from tests.providers.subjects.subject import Faults, Subject

DEADLINE_S = 1.0
SILENCE_S = 0.3
"""How long a call is given that gets no answer, where nothing is asked of the time that it takes."""
CANARY = b"a canary that must never be seen"
FAILURES: dict[str, Callable[[Faults, str], None]] = {
    "fail_next": lambda faults, key_id: faults.fail_next(100),
    "throttle_next": lambda faults, key_id: faults.throttle_next(100),
    "black_hole": lambda faults, key_id: faults.black_hole(),
    "disable": lambda faults, key_id: faults.disable(key_id),
    "destroy": lambda faults, key_id: faults.destroy(key_id),
}


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
    await within(DEADLINE_S + 8, hasty.decrypt(sealed))
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
    assert time.monotonic() - started < 9  # the deadline is 10 s away
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


@pytest.mark.parametrize(
    ("subject", "failure"),
    [(name, failure) for failure in FAILURES for name, harness in HARNESSES.items() if failure in harness.faults],
    indirect=["subject"],
)
async def test_no_error_shows_a_key_that_was_to_be_wrapped_or_opened_in_message_frames_or_context(
    subject: Subject, failure: str
) -> None:
    provider, watch = guarded(subject, SILENCE_S if failure == "black_hole" else DEADLINE_S), SecretWatch()
    with learning(watch):
        sealed = await guarded(subject).encrypt(SecretBytes(CANARY), subject.key_id)
        calls: list[Callable[[], Awaitable[object]]] = [
            lambda: provider.decrypt(sealed),
            lambda: provider.encrypt(SecretBytes(os.urandom(32)), subject.key_id),
            lambda: provider.encrypt(SecretBytes(CANARY), subject.key_id),
        ]
        if isinstance(provider, GeneratesDataKeys):
            calls.append(lambda: provider.generate_data_key(subject.key_id))
        shown = []
        FAILURES[failure](faults(subject), subject.key_id)
        for call in calls:
            try:
                await call()
            except KMSError as error:
                shown.append(as_shown(error))
    # An Azure vault wraps with the public half, here: of that nothing fails.
    assert shown
    for text in shown:
        assert watch.find(text) == []
        assert CANARY.decode() not in text


@subjects()
async def test_no_error_of_another_context_or_of_altered_bytes_shows_the_key_inside(subject: Subject) -> None:
    provider, watch = guarded(subject), SecretWatch()
    with learning(watch):
        key = SecretBytes(os.urandom(32))
        sealed = await provider.encrypt(key, subject.key_id, context={"tenant": "north"})
        for context, ciphertext in (
            ({"tenant": "south"}, sealed.ciphertext),
            ({"tenant": "north"}, sealed.ciphertext[:-1] + bytes([sealed.ciphertext[-1] ^ 1])),
        ):
            with pytest.raises(DecryptionError) as caught:
                await provider.decrypt(replace(sealed, ciphertext=ciphertext), context=context)
            assert watch.find(as_shown(caught.value)) == []


def as_shown(error: BaseException) -> str:
    """Return an error as an error tracker shows it: with the values of every frame's names, but the test's own."""
    own = error.__traceback__.tb_next if error.__traceback__ else None
    return "".join(traceback.TracebackException(type(error), error, own, capture_locals=True).format())


@subjects(fault="black_hole")
async def test_the_event_loop_goes_on_while_a_hundred_calls_wait(subject: Subject) -> None:
    provider = guarded(subject)
    sealed = await provider.encrypt(b"value", subject.key_id)
    faults(subject).black_hole()
    calls = [asyncio.create_task(provider.encrypt(b"value", subject.key_id)) for _ in range(100)]
    turns = 0
    # In a loop that is blocked, every call has ended before there is a turn. Threads that all begin at once leave the
    # loop few turns on a slow machine, and so as many as are wanted are waited for.
    while turns < 20 and not any(call.done() for call in calls):
        await asyncio.sleep(0.001)
        turns += 1
    for call in calls:
        call.cancel()
    await asyncio.gather(*calls, return_exceptions=True)
    assert turns == 20
    faults(subject).heal()
    assert await provider.decrypt(sealed) == b"value"
