"""Wrapping by every member: what the policies ask for, and that no failure is silent."""

from __future__ import annotations

import asyncio
import logging
from typing import Any, cast

import pytest

from keystead.errors import (
    ConfigurationError,
    EncryptionError,
    InvalidInputError,
    KeyStateError,
    ProviderAuthError,
    ProviderConnectionError,
    SystemShutdownError,
)
from keystead.model import EncryptedData, KeyReference
from keystead.providers.guard import GuardedProvider
from keystead.providers.local.provider import LocalKMSConfig, LocalKMSProvider
from keystead.providers.multi.provider import MultiKMSProvider
from keystead.testing import FakeKMS
from tests.fakes.clock import FakeClock
from tests.providers.multi.sets import CONTEXT, KEY_ID, Keks, wraps_of
from tests.providers.stubs import Bare
from tests.test_telemetry import Measured, measured

__all__ = ["measured"]

THROTTLED = ProviderConnectionError("throttled", retry_after_s=7.0)


async def test_every_member_wraps_at_the_same_time() -> None:
    together = asyncio.Barrier(3)

    class Waiting(Bare):
        async def encrypt(self, plaintext: bytes, key_id: str, **options: Any) -> EncryptedData:
            await together.wait()
            return await super().encrypt(plaintext, key_id, **options)

    keks = Keks()
    provider = MultiKMSProvider({name: Waiting(keks[name]) for name in keks.names})
    assert wraps_of(await provider.encrypt(b"value", "kek", context=CONTEXT)) == ["a", "b", "c"]
    assert keks.calls("encrypt") == {"a": 1, "b": 1, "c": 1}


async def test_the_answer_names_every_kek_and_its_version_and_what_was_asked_for() -> None:
    keks = Keks(("home", "cloud"))
    await keks["home"].rotate_key("kek")
    sealed = await keks.all_together().encrypt(b"value", KEY_ID)
    reference = sealed.key_reference
    assert (reference.key_id, reference.key_version) == ("{cloud=kek,home=kek}", "{cloud=1,home=2}")
    assert (reference.provider, reference.key_alias, sealed.algorithm) == ("multi", "default", "multi-v1")


async def test_the_callers_context_is_told_without_the_commitment() -> None:
    sealed = await Keks().all_together().encrypt(b"value", KEY_ID, context=CONTEXT)
    assert dict(sealed.context) == CONTEXT


async def test_the_commitment_tells_nothing_of_the_plaintext() -> None:
    keks = Keks().all_together()
    first, second = [await keks.encrypt(b"1234", KEY_ID) for _ in range(2)]
    assert first.ciphertext[2:18] != second.ciphertext[2:18]


@pytest.mark.parametrize(("policy", "down", "made"), [(1, 2, True), ("any", 2, True), ("any", 3, False), (2, 1, True)])
async def test_a_policy_is_met_by_as_many_members_as_it_says(policy: Any, down: int, made: bool) -> None:
    keks = Keks()
    for name in keks.names[:down]:
        keks[name].fail_always()
    provider = keks.all_together(policy=policy)
    if not made:
        with pytest.raises(ProviderConnectionError):
            await provider.encrypt(b"value", KEY_ID)
        return
    sealed = await provider.encrypt(b"value", KEY_ID)
    assert wraps_of(sealed) == list(keks.names[down:])
    assert provider.missing_wraps(sealed) == list(keks.names[:down])


@pytest.mark.parametrize(("policy", "down"), [("all", 1), (3, 1), (2, 2), ("any", 3)])
async def test_one_member_too_few_and_nothing_is_encrypted(policy: Any, down: int) -> None:
    keks = Keks()
    for name in keks.names[:down]:
        keks[name].deny()
    with pytest.raises(ProviderAuthError, match=r"wrapped by [012] KEKs, and the policy asks for"):
        await keks.all_together(policy=policy).encrypt(b"value", KEY_ID)


async def test_a_member_with_wrong_credentials_is_down_and_not_fatal(
    caplog: pytest.LogCaptureFixture, measured: Measured
) -> None:
    keks = Keks()
    keks["b"].deny()
    with caplog.at_level(logging.WARNING, "keystead.providers"):
        sealed = await keks.all_together(policy="any").encrypt(b"value", KEY_ID)
    assert wraps_of(sealed) == ["a", "c"]
    [record] = caplog.records
    assert record.getMessage() == "wrapped without the KEK 'b' (provider_auth); `keystead key rewrap` adds it"
    assert measured["keystead_wrap_faults_total"] == {(("fault", "missing"), ("provider", "b")): 1}


async def test_a_healthy_encryption_counts_no_faults(measured: Measured) -> None:
    await Keks().all_together().encrypt(b"value", KEY_ID)
    assert "keystead_wrap_faults_total" not in measured.names()


async def test_a_member_that_answers_late_is_not_waited_for_when_there_are_enough() -> None:
    keks = Keks()
    keks["c"].delay_s = 3600.0
    provider = keks.all_together(policy=2, patience_s=0.05)
    sealed = await asyncio.wait_for(provider.encrypt(b"value", KEY_ID), 5.0)
    assert wraps_of(sealed) == ["a", "b"]


async def test_a_member_that_answers_in_time_is_waited_for() -> None:
    keks = Keks()
    keks["c"].delay_s = 0.05
    sealed = await keks.all_together(policy="any", patience_s=3.0).encrypt(b"value", KEY_ID)
    assert wraps_of(sealed) == ["a", "b", "c"]


async def test_a_failure_that_ends_all_hope_is_not_waited_with() -> None:
    keks = Keks()
    keks["a"].deny()
    keks["b"].delay_s = 3600.0
    with pytest.raises(ProviderAuthError, match=r"a: the fake KMS denies the call$"):
        await asyncio.wait_for(keks.all_together().encrypt(b"value", KEY_ID), 60.0)


async def test_a_failure_that_may_pass_makes_the_whole_retryable_and_tells_how_long_to_wait() -> None:
    keks = Keks()
    keks["a"].deny()
    for name in ("b", "c"):
        keks[name].fail_always(THROTTLED)
    with pytest.raises(ProviderConnectionError) as caught:
        await keks.all_together(policy="any", clock=FakeClock()).encrypt(b"value", KEY_ID)
    assert (caught.value.retryable, caught.value.retry_after_s) == (True, 7.0)
    assert type(caught.value) is ProviderConnectionError


async def test_a_member_repeats_its_own_call_and_the_others_are_left_alone() -> None:
    keks = Keks(("a", "b"))
    keks["a"].fail_next(1, ProviderConnectionError("busy"))
    guarded = GuardedProvider(keks.all_together(clock=FakeClock()), "both")
    assert wraps_of(await guarded.encrypt(b"value", KEY_ID)) == ["a", "b"]
    assert keks.calls("encrypt") == {"a": 2, "b": 1}


async def test_nobody_is_asked_more_often_than_a_guard_asks() -> None:
    keks = Keks(("a", "b"))
    for name in keks.names:
        keks[name].fail_always()
    guarded = GuardedProvider(keks.all_together(clock=FakeClock()), "both")
    with pytest.raises(ProviderConnectionError):
        await guarded.encrypt(b"value", KEY_ID)
    assert max(keks.calls("encrypt").values()) == 3


async def test_a_member_that_does_not_take_the_call_is_a_mistake_under_every_policy() -> None:
    keks = Keks()
    keks["b"].fail_always(InvalidInputError("that is no ARN"))
    with pytest.raises(InvalidInputError, match="b: that is no ARN"):
        await keks.all_together(policy="any").encrypt(b"value", KEY_ID)


async def test_a_disabled_key_is_told_as_such() -> None:
    keks = Keks(("a", "b"))
    keks["a"].disable("kek")
    with pytest.raises(KeyStateError, match="a: the key is disabled"):
        await keks.all_together().encrypt(b"value", KEY_ID)


async def test_a_key_id_that_is_not_the_default_goes_to_every_member_as_it_is() -> None:
    keks = Keks(("a", "b"))
    for name in keks.names:
        keks[name].create_key("orders")
    sealed = await keks.all_together().encrypt(b"value", "orders")
    assert sealed.key_reference.key_id == "{a=orders,b=orders}"
    assert await keks.all_together().decrypt(sealed) == b"value"


async def test_without_key_ids_a_member_uses_its_own_default() -> None:
    provider = MultiKMSProvider({"home": LocalKMSProvider(LocalKMSConfig(master_key=bytes(range(32))))})
    assert provider.member_key_id("home") == "default"
    assert (await provider.encrypt(b"value", KEY_ID)).key_reference.key_id == "{home=default}"


async def test_a_member_without_a_default_needs_a_key_id() -> None:
    provider = MultiKMSProvider({"a": FakeKMS()})
    with pytest.raises(ConfigurationError, match="'a' has no key id"):
        await provider.encrypt(b"value", KEY_ID)


async def test_an_answer_without_a_key_id_is_no_wrap() -> None:
    class Nameless(Bare):
        async def encrypt(self, plaintext: bytes, key_id: str, **options: Any) -> EncryptedData:
            sealed = await super().encrypt(plaintext, key_id, **options)
            return EncryptedData(b"x", KeyReference("bare", ""), sealed.algorithm, sealed.encrypted_at)

    with pytest.raises(EncryptionError, match="without saying under which key"):
        await MultiKMSProvider({"a": Nameless(FakeKMS())}).encrypt(b"value", "k")


async def test_the_commitments_own_context_key_is_refused() -> None:
    with pytest.raises(InvalidInputError, match=r"keystead\.commitment"):
        await Keks().all_together().encrypt(b"value", KEY_ID, context={"keystead.commitment": "x"})


@pytest.mark.parametrize("kind", [bytearray, memoryview])
async def test_bytes_like_values_are_taken(kind: Any) -> None:
    keks = Keks().all_together()
    assert await keks.decrypt(await keks.encrypt(cast(bytes, kind(b"value")), KEY_ID)) == b"value"


async def test_a_closed_set_does_nothing_any_more() -> None:
    keks = Keks()
    provider = keks.all_together()
    sealed = await provider.encrypt(b"value", KEY_ID)
    await provider.aclose()
    assert keks.calls("aclose") == {"a": 1, "b": 1, "c": 1}
    for call in (provider.encrypt(b"x", KEY_ID), provider.decrypt(sealed), provider.describe(KEY_ID)):
        with pytest.raises(SystemShutdownError):
            await call


async def test_a_member_that_fails_to_close_does_not_keep_the_others_open() -> None:
    keks = Keks()

    async def fail() -> None:
        raise ProviderConnectionError("the session is gone")

    member = keks["a"].provider()
    member.aclose = fail  # type: ignore[method-assign]
    provider = MultiKMSProvider({"a": member, "b": keks["b"].provider()})
    with pytest.raises(ProviderConnectionError):
        await provider.aclose()
    assert keks.calls("aclose") == {"b": 1}


@pytest.mark.parametrize(
    ("members", "options", "told"),
    [
        ({}, {}, "1 to 16 members"),
        ({str(number): FakeKMS() for number in range(17)}, {}, "1 to 16 members"),
        ({"a:b": FakeKMS()}, {}, "no colon"),
        ({"": FakeKMS()}, {}, "no colon"),
        ({"\ud800": FakeKMS()}, {}, "no colon"),
        ({"x" * 101: FakeKMS()}, {}, "1 to 100 characters"),
        ({"a": FakeKMS()}, {"policy": 0}, "how many of the 1 members"),
        ({"a": FakeKMS()}, {"policy": 2}, "how many of the 1 members"),
        ({"a": FakeKMS()}, {"policy": "most"}, "how many of the 1 members"),
        ({"a": FakeKMS()}, {"policy": True}, "how many of the 1 members"),
        ({"a": FakeKMS()}, {"key_ids": {"b": "kek"}}, "'b', which is no member"),
        ({"a": MultiKMSProvider({"b": FakeKMS()})}, {}, "'a' is a set of KEKs itself"),
        ({"a": GuardedProvider(MultiKMSProvider({"b": FakeKMS()}), "x")}, {}, "'a' is a set of KEKs itself"),
    ],
)
def test_a_set_that_cannot_be_is_refused(members: Any, options: Any, told: str) -> None:
    with pytest.raises(ConfigurationError, match=told):
        MultiKMSProvider(members, **options)


def test_a_set_with_a_random_kek_outlives_nothing() -> None:
    assert MultiKMSProvider({"a": FakeKMS(), "b": LocalKMSProvider()}).is_ephemeral
    assert not Keks().all_together().is_ephemeral


def test_the_repr_names_members_and_policy() -> None:
    assert repr(Keks().all_together(policy=2)) == "MultiKMSProvider(['a', 'b', 'c'], policy=2)"
