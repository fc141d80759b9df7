"""Wraps over time: told, checked, added, renewed, dropped; keys described and rotated as one."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from keystead.errors import (
    DecryptionError,
    InvalidCiphertextError,
    KeyRotationError,
    KeyStateError,
    ProviderAuthError,
    ProviderConnectionError,
    ProviderNotConfiguredError,
    RotationNotSupportedError,
)
from keystead.model import EncryptedData, KeyState, WrapState
from keystead.ports import KmsProvider
from keystead.providers.local.provider import LocalKMSConfig, LocalKMSProvider
from keystead.providers.multi.provider import MultiKMSProvider
from keystead.testing import FakeKMS
from tests.fakes.clock import FakeClock
from tests.providers.multi.sets import CONTEXT, KEY_ID, Keks, container_of, wraps_of
from tests.providers.stubs import Bare


async def without(keks: Keks, name: str, **options: Any) -> EncryptedData:
    """Encrypt while one member is down."""
    keks[name].deny()
    sealed = await keks.all_together(policy="any", **options).encrypt(b"value", KEY_ID, context=CONTEXT)
    keks[name].heal()
    return sealed


async def test_a_missing_wrap_is_told_without_asking_anybody_and_added_by_mending() -> None:
    keks = Keks()
    sealed = await without(keks, "b")
    keks.forget_calls()
    provider = keks.all_together()
    assert provider.missing_wraps(sealed) == ["b"]
    assert sum(service.calls.total() for service in keks.services.values()) == 0
    mended = await provider.mend_wraps(sealed, KEY_ID, context=CONTEXT)
    assert provider.missing_wraps(mended) == []
    for name in keks.names:
        assert await keks.all_together(name).decrypt(mended, context=CONTEXT) == b"value"


async def test_mending_keeps_commitment_context_and_what_was_asked_for() -> None:
    keks = Keks()
    sealed = await without(keks, "b")
    mended = await keks.all_together().mend_wraps(sealed, KEY_ID, context=CONTEXT)
    before, after = container_of(sealed), container_of(mended)
    assert (before.commitment, before.asked) == (after.commitment, after.asked)
    assert before.body != after.body
    assert dict(mended.context) == CONTEXT


async def test_wraps_of_former_members_are_dropped() -> None:
    keks = Keks()
    sealed = await keks.all_together().encrypt(b"value", KEY_ID)
    assert wraps_of(await keks.all_together("a", "b").rewrap(sealed)) == ["a", "b"]


async def test_a_new_member_is_added() -> None:
    keks = Keks()
    sealed = await keks.all_together("a", "b").encrypt(b"value", KEY_ID)
    mended = await keks.all_together().rewrap(sealed)
    assert await keks.all_together("c").decrypt(mended) == b"value"


async def test_a_member_that_does_not_answer_keeps_its_wrap_while_the_others_are_renewed() -> None:
    keks = Keks()
    sealed = await keks.all_together().encrypt(b"value", KEY_ID)
    await keks["a"].rotate_key("kek")
    keks["b"].fail_always()
    mended = await keks.all_together(clock=FakeClock()).rewrap(sealed)
    assert mended.key_reference.key_version == "{a=2,b=1,c=1}"
    keks["b"].heal()
    assert await keks.all_together("b").decrypt(mended) == b"value"


async def test_a_member_that_opens_and_does_not_wrap_keeps_its_wrap_too() -> None:
    keks = Keks()
    sealed = await keks.all_together().encrypt(b"value", KEY_ID)
    await keks["a"].rotate_key("kek")
    keks["b"].fail_next(1, ProviderAuthError("no permission to encrypt"), operation="encrypt")
    mended = await keks.all_together().rewrap(sealed)
    assert mended.key_reference.key_version == "{a=2,b=1,c=1}"
    assert await keks.all_together("b").decrypt(mended) == b"value"


async def test_what_cannot_be_made_better_is_an_error_that_says_who_does_not_answer() -> None:
    keks = Keks()
    sealed = await without(keks, "b")
    keks["b"].deny()
    with pytest.raises(ProviderAuthError, match=r"no wrap could be added or renewed: b: "):
        await keks.all_together(policy="any").mend_wraps(sealed, KEY_ID, context=CONTEXT)


async def test_mending_with_nobody_there_is_the_error_of_reading() -> None:
    keks = Keks()
    sealed = await keks.all_together().encrypt(b"value", KEY_ID)
    for name in keks.names:
        keks[name].fail_always()
    with pytest.raises(ProviderConnectionError, match="no KEK opened it"):
        await keks.all_together(clock=FakeClock()).rewrap(sealed)
    with pytest.raises(ProviderNotConfiguredError, match="'a', 'b', 'c'"):
        await Keks(("z",)).all_together().rewrap(sealed)


async def test_the_policy_holds_for_what_mending_leaves() -> None:
    keks = Keks()
    sealed = await keks.all_together("a", "b", policy="any").encrypt(b"value", KEY_ID)
    await keks["a"].rotate_key("kek")
    keks["c"].deny()
    with pytest.raises(ProviderAuthError, match="wrapped by 2 KEKs, and the policy asks for 3"):
        await keks.all_together().rewrap(sealed)
    assert wraps_of(await keks.all_together(policy=2).rewrap(sealed)) == ["a", "b"]


async def test_who_mends_without_a_member_is_told_of_it(caplog: pytest.LogCaptureFixture) -> None:
    keks = Keks()
    sealed = await keks.all_together("a", "b").encrypt(b"value", KEY_ID)
    await keks["a"].rotate_key("kek")
    keks["c"].deny()
    with caplog.at_level(logging.WARNING, "keystead.providers"):
        await keks.all_together(policy="any").rewrap(sealed)
    assert [record.getMessage() for record in caplog.records] == [
        "wrapped without the KEK 'c' (provider_auth); `keystead key rewrap` adds it"
    ]


async def test_mending_under_another_key_id_moves_every_wrap_there() -> None:
    keks = Keks(("a", "b"))
    for name in keks.names:
        keks[name].create_key("orders")
    sealed = await keks.all_together().encrypt(b"value", KEY_ID)
    moved = await keks.all_together().mend_wraps(sealed, "orders")
    assert (moved.key_reference.key_id, container_of(moved).asked) == ("{a=orders,b=orders}", "orders")


async def test_a_check_without_opening_tells_what_is_stale_missing_foreign_or_away() -> None:
    keks = Keks(("stale", "gone", "away", "former", "moved", "fine"))
    sealed = await keks.all_together("stale", "away", "former", "moved", "fine").encrypt(b"value", KEY_ID)
    await keks["stale"].rotate_key("kek")
    keks["moved"].create_key("other")
    keks["away"].fail_always()
    members = ("stale", "gone", "away", "moved", "fine")
    key_ids = {**dict.fromkeys(members, "kek"), "moved": "other"}
    keks.forget_calls()
    states = await keks.all_together(*members, key_ids=key_ids, clock=FakeClock()).check_wraps(sealed)
    assert states == {
        "stale": WrapState.STALE,
        "gone": WrapState.MISSING,
        "away": WrapState.UNREACHABLE,
        "moved": WrapState.STALE,
        "fine": WrapState.CURRENT,
        "former": WrapState.UNCONFIGURED,
    }
    assert keks.calls("decrypt") == {}
    assert {state for state in WrapState if state.is_mended_by_rewrap} == {
        WrapState.STALE,
        WrapState.MISSING,
        WrapState.UNCONFIGURED,
    }


async def test_a_check_that_opens_tells_a_member_that_only_may_not_describe_from_one_that_is_away() -> None:
    keks = Keks()
    sealed = await keks.all_together().encrypt(b"value", KEY_ID)
    keks["a"].fail_next(1, ProviderAuthError("no permission to describe"), operation="describe")
    keks["b"].deny()
    states = await keks.all_together().check_wraps(sealed, opens=True)
    assert states == {"a": WrapState.CURRENT, "b": WrapState.UNREACHABLE, "c": WrapState.CURRENT}


async def test_a_check_of_nobody_at_home_tells_that() -> None:
    keks = Keks(("a",))
    sealed = await keks.all_together().encrypt(b"value", KEY_ID)
    keks["a"].deny()
    assert await keks.all_together().check_wraps(sealed, opens=True) == {"a": WrapState.UNREACHABLE}


async def test_a_member_that_tells_no_versions_is_current_as_long_as_it_opens() -> None:
    kms = FakeKMS()
    provider = MultiKMSProvider({"bare": Bare(kms)})
    sealed = await provider.encrypt(b"value", "kek")
    await kms.rotate_key("kek")
    assert await provider.check_wraps(sealed, opens=True) == {"bare": WrapState.CURRENT}
    assert (await provider.describe("kek")).key_reference.key_id == "{bare=kek}"
    assert (await provider.describe("kek")).current_version == "{bare=}"


async def test_a_check_of_something_altered_or_of_another_context_raises() -> None:
    keks = Keks()
    sealed = await keks.all_together().encrypt(b"value", KEY_ID, context=CONTEXT)
    one_kek = await keks["a"].encrypt(b"value", "kek")
    for call in (
        keks.all_together().check_wraps(one_kek),
        keks.all_together().rewrap(one_kek),
        keks.all_together().rewrap(sealed, context={}),
    ):
        with pytest.raises(DecryptionError):
            await call
    with pytest.raises(DecryptionError):
        keks.all_together().missing_wraps(one_kek)
    states = await keks.all_together().check_wraps(sealed, context={}, opens=True)
    assert set(states.values()) == {WrapState.REFUSED}
    garbage = EncryptedData(b"x", sealed.key_reference, "multi-v1", sealed.encrypted_at)
    with pytest.raises(InvalidCiphertextError):
        keks.all_together().missing_wraps(garbage)


async def test_a_check_under_another_key_id_finds_every_wrap_stale() -> None:
    keks = Keks(("a", "b"))
    for name in keks.names:
        keks[name].create_key("orders")
    sealed = await keks.all_together().encrypt(b"value", KEY_ID)
    assert set((await keks.all_together().check_wraps(sealed, "orders")).values()) == {WrapState.STALE}


async def test_the_set_is_enabled_while_enough_of_its_keys_are() -> None:
    keks = Keks()
    keks["a"].disable("kek")
    assert (await keks.all_together(policy=2).describe(KEY_ID)).state is KeyState.ENABLED
    assert (await keks.all_together().describe(KEY_ID)).state is KeyState.DISABLED
    for name in keks.names:
        keks[name].disable("kek")
    assert (await keks.all_together(policy="any").describe(KEY_ID)).state is KeyState.DISABLED


async def test_a_member_that_describes_no_keys_does_not_keep_the_others_from_telling() -> None:
    keks, clock = Keks(names=("a",)), FakeClock()
    plain = Bare(FakeKMS(clock=clock))
    whole = MultiKMSProvider({"a": keks["a"].provider(), "plain": plain}, key_ids={"a": "kek", "plain": "kek"})
    description = await whole.describe(KEY_ID)
    assert description.state is KeyState.ENABLED
    assert description.current_version == "{a=1,plain=}"
    assert description.created_at is not None
    keks["a"].disable("kek")
    assert (await whole.describe(KEY_ID)).state is KeyState.DISABLED
    keks["a"].deny()
    with pytest.raises(ProviderAuthError, match="a: the fake KMS denies the call"):
        await whole.describe(KEY_ID)


async def test_a_set_is_described_whole_or_not_at_all() -> None:
    keks = Keks()
    keks["b"].deny()
    with pytest.raises(ProviderAuthError, match="b: the fake KMS denies the call"):
        await keks.all_together(policy="any").describe(KEY_ID)


async def test_a_set_is_as_old_as_its_oldest_key() -> None:
    young, old = FakeClock(), FakeClock()
    young.advance(3600)
    members = {"young": FakeKMS(clock=young, keys=["k"]), "old": FakeKMS(clock=old, keys=["k"])}
    assert (await MultiKMSProvider(members).describe("k")).created_at == old.now()


async def test_rotating_makes_a_version_of_every_key() -> None:
    keks = Keks()
    rotated = await keks.all_together().rotate_key(KEY_ID)
    assert rotated.key_version == "{a=2,b=2,c=2}"
    assert (await keks.all_together().describe(KEY_ID)).current_version == "{a=2,b=2,c=2}"


async def test_a_rotation_of_some_says_which_and_loses_nothing() -> None:
    keks = Keks()
    sealed = await keks.all_together().encrypt(b"value", KEY_ID)
    keks["b"].fail_next(9, KeyStateError("the key is frozen"), operation="rotate_key")
    with pytest.raises(KeyRotationError, match=r"these have: a, c.*b: the key is frozen"):
        await keks.all_together().rotate_key(KEY_ID)
    for name in keks.names:
        assert await keks.all_together(name).decrypt(sealed) == b"value"
    mended = await keks.all_together().rewrap(sealed)
    assert mended.key_reference.key_version == "{a=2,b=1,c=2}"


async def test_a_member_that_cannot_rotate_is_named_before_any_other_has() -> None:
    keks = Keks(("a",))
    members: dict[str, KmsProvider] = {"a": keks["a"].provider(), "bare": Bare(FakeKMS())}
    with pytest.raises(RotationNotSupportedError, match="bare makes no new version"):
        await MultiKMSProvider(members).rotate_key("kek")
    assert keks.calls("rotate_key") == {}


async def test_a_member_that_finds_out_late_that_it_cannot_rotate_makes_it_hopeless() -> None:
    members = {"home": LocalKMSProvider(LocalKMSConfig(master_key=bytes(range(32))))}
    with pytest.raises(RotationNotSupportedError, match="these have: none") as caught:
        await MultiKMSProvider(members).rotate_key(KEY_ID)
    assert not caught.value.retryable
