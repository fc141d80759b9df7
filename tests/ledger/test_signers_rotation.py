"""Signers over a KMS: time, rotation, outages."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from keystead.errors import (
    ConfigurationError,
    DecryptionError,
    InvalidSignatureError,
    KeyNotFoundError,
    KeyStateError,
    ProviderAuthError,
    ProviderConnectionError,
    SystemShutdownError,
)
from keystead.ledger.signers.format import SessionSignature, session_head, wrapped_bytes
from keystead.ledger.signers.session import SessionKey
from keystead.ledger.signers.signer import KmsSigner, SignerSettings
from keystead.model import EncryptedData, PublicKey
from keystead.testing import FakeKMS
from tests.fakes.clock import FakeClock
from tests.ledger.signer_keys import (
    MESSAGE,
    OUTAGE,
    Undescribed,
    each_key,
    each_native_key,
    signer,
    with_keys,
)


@pytest.fixture
def kms(clock: FakeClock) -> FakeKMS:
    return with_keys(FakeKMS(keys=[], clock=clock))


async def test_f4_one_session_key_signs_everything_until_its_time_is_over(kms: FakeKMS, clock: FakeClock) -> None:
    one = signer(kms)
    signatures = [await one.sign(str(number).encode()) for number in range(100)]
    assert len({SessionSignature.parse(each).wrapped for each in signatures}) == 1
    assert (kms.calls["generate_data_key"], kms.calls["decrypt"]) == (1, 0)


async def test_f4_at_the_end_of_its_time_the_same_key_is_unwrapped_again(kms: FakeKMS, clock: FakeClock) -> None:
    one = signer(kms)
    before = await one.sign(MESSAGE)
    clock.advance(300)
    after = await one.sign(MESSAGE)
    assert after == before
    assert (kms.calls["generate_data_key"], kms.calls["decrypt"]) == (1, 1)
    await one.verify(MESSAGE, before)


async def test_f4_signatures_of_another_process_verify_by_their_own_bytes_alone(kms: FakeKMS) -> None:
    first, second = signer(kms), signer(kms)
    one, two = await first.sign(MESSAGE), await second.sign(MESSAGE)
    assert one != two
    await first.verify(MESSAGE, two)
    await second.verify(MESSAGE, one)
    await first.aclose()
    await second.verify(MESSAGE, one)


async def test_a_session_key_of_another_process_is_unwrapped_once(kms: FakeKMS) -> None:
    signatures = [await signer(kms).sign(MESSAGE), *[await signer(kms).sign(MESSAGE)]]
    verifier = signer(kms)
    for _ in range(10):
        for signature in signatures:
            await verifier.verify(MESSAGE, signature)
    assert kms.calls["decrypt"] == 2


async def test_a_session_key_that_verifies_is_confirmed_again_in_time(kms: FakeKMS, clock: FakeClock) -> None:
    signature = await signer(kms).sign(MESSAGE)
    verifier = signer(kms)
    await verifier.verify(MESSAGE, signature)
    kms.disable("aes")
    await verifier.verify(MESSAGE, signature)
    clock.advance(300)
    with pytest.raises(KeyStateError):
        await verifier.verify(MESSAGE, signature)


async def test_what_does_not_open_is_asked_anew_each_time(kms: FakeKMS) -> None:
    signature = await signer(kms, stream="other").sign(MESSAGE)
    one = signer(kms)
    for _ in range(3):
        with pytest.raises(InvalidSignatureError):
            await one.verify(MESSAGE, signature)
    assert kms.calls["decrypt"] == 3
    assert not one._sessions._opened


async def test_no_more_session_keys_are_held_than_is_good(kms: FakeKMS, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("keystead.ledger.signers.session.MAX_OPENED", 3)
    signatures = [await signer(kms).sign(MESSAGE) for _ in range(5)]
    one = signer(kms)
    for signature in signatures:
        await one.verify(MESSAGE, signature)
    assert len(one._sessions._opened) == 3
    await one.verify(MESSAGE, signatures[0])


@each_key
async def test_a_rotation_is_detected_and_the_new_version_signs(kms: FakeKMS, key_id: str) -> None:
    one = signer(kms, key_id)
    old = await one.sign_named(MESSAGE)
    assert old.key_id == f"{key_id}#1" == await one.current_key_id()
    assert not await one.rotate_check()
    await kms.rotate_key(key_id)
    assert await one.rotate_check()
    assert not await one.rotate_check()
    new = await one.sign_named(MESSAGE)
    assert new.key_id == f"{key_id}#2" == await one.current_key_id()
    for each in (old, new):
        await one.verify(MESSAGE, each.signature)
        await one.verify(MESSAGE, each.signature, key_id=each.key_id)
        await one.verify(MESSAGE, each.signature, key_id=key_id)


@each_key
async def test_the_first_check_of_a_rotation_finds_none(kms: FakeKMS, key_id: str) -> None:
    assert not await signer(kms, key_id).rotate_check()


@each_key
async def test_f7_signatures_of_before_a_rotation_verify_in_a_new_process(kms: FakeKMS, key_id: str) -> None:
    old = await signer(kms, key_id).sign_named(MESSAGE)
    for _ in range(3):
        await kms.rotate_key(key_id)
    await signer(kms, key_id).verify(MESSAGE, old.signature)
    await signer(kms, key_id).verify(MESSAGE, old.signature, key_id=old.key_id)


@each_native_key
async def test_a_version_that_another_process_signs_by_is_found(kms: FakeKMS, key_id: str) -> None:
    one = signer(kms, key_id)
    await one.sign(MESSAGE)
    await kms.rotate_key(key_id)
    await one.verify(MESSAGE, await signer(kms, key_id).sign(MESSAGE))


@each_key
async def test_f6_the_version_that_is_named_is_the_one_that_counts(kms: FakeKMS, key_id: str) -> None:
    one = signer(kms, key_id)
    old = await one.sign_named(MESSAGE)
    await kms.rotate_key(key_id)
    await one.rotate_check()
    new = await one.sign_named(MESSAGE)
    for signature, named in ((old.signature, new.key_id), (new.signature, old.key_id)):
        with pytest.raises(InvalidSignatureError):
            await one.verify(MESSAGE, signature, key_id=named)


@each_native_key
async def test_f21_a_version_that_is_not_there_could_not_be_checked(kms: FakeKMS, key_id: str) -> None:
    one = signer(kms, key_id)
    with pytest.raises(KeyNotFoundError):
        await one.verify(MESSAGE, await one.sign(MESSAGE), key_id=f"{key_id}#77")


@each_key
async def test_f24_an_alias_is_recorded_as_the_key_behind_it(kms: FakeKMS, key_id: str) -> None:
    kms.add_alias("alias/audit", key_id)
    one = signer(kms, "alias/audit", trusted_key_ids=(key_id,))
    old = await one.sign_named(MESSAGE)
    assert old.key_id == f"{key_id}#1"
    kms.add_alias("alias/audit", f"other-{key_id}")
    assert await one.rotate_check()
    new = await one.sign_named(MESSAGE)
    assert new.key_id == f"other-{key_id}#1" == await one.current_key_id()
    for each in (old, new):
        await one.verify(MESSAGE, each.signature)
        await one.verify(MESSAGE, each.signature, key_id=each.key_id)
        await signer(kms, "alias/audit", trusted_key_ids=(key_id,)).verify(MESSAGE, each.signature, key_id=each.key_id)


async def test_an_alias_that_was_moved_no_longer_vouches_for_the_key_of_before(kms: FakeKMS) -> None:
    kms.add_alias("alias/audit", "aes")
    old = await signer(kms, "alias/audit").sign(MESSAGE)
    kms.add_alias("alias/audit", "other-aes")
    with pytest.raises(KeyNotFoundError, match="trusted_key_ids"):
        await signer(kms, "alias/audit").verify(MESSAGE, old)


@each_key
async def test_a_rotation_is_noticed_at_the_end_of_the_time_as_well(
    kms: FakeKMS, clock: FakeClock, key_id: str
) -> None:
    one = signer(kms, key_id)
    await one.sign(MESSAGE)
    await one.current_key_id()
    await kms.rotate_key(key_id)
    clock.advance(300)
    assert (await one.sign_named(MESSAGE)).key_id == f"{key_id}#2" == await one.current_key_id()
    assert await one.rotate_check()


async def test_after_a_signature_by_a_newer_version_the_current_id_is_that_one(kms: FakeKMS) -> None:
    one = signer(kms, "signer")
    assert await one.current_key_id() == "signer#1"
    await kms.rotate_key("signer")
    signed = await one.sign_named(MESSAGE)
    assert signed.key_id == "signer#2" == await one.current_key_id()


async def test_a_kms_that_is_not_described_to_us_is_done_without(kms: FakeKMS) -> None:
    one = signer(Undescribed(kms))
    signed = await one.sign_named(MESSAGE)
    await one.verify(MESSAGE, signed.signature, key_id=signed.key_id)
    assert not await one.rotate_check()
    assert await one.current_key_id() == signed.key_id


async def test_where_describing_is_denied_session_keys_still_work(kms: FakeKMS) -> None:
    kms.fail_next(100, ProviderAuthError("may not describe"), operation="describe")
    one = signer(kms)
    await one.verify(MESSAGE, await one.sign(MESSAGE))
    with pytest.raises(ConfigurationError, match="permission"):
        await signer(kms, "mac", use_kms_signing=True).sign(MESSAGE)


async def test_whoever_may_only_draw_goes_on_with_a_new_key(kms: FakeKMS, clock: FakeClock) -> None:
    one = signer(kms)
    before = await one.sign(MESSAGE)
    kms.fail_next(1, ProviderAuthError("may not decrypt"), operation="decrypt")
    clock.advance(300)
    after = await one.sign(MESSAGE)
    assert SessionSignature.parse(after).wrapped != SessionSignature.parse(before).wrapped
    for signature in (before, after):
        await signer(kms).verify(MESSAGE, signature)


async def test_a_session_key_that_no_longer_unwraps_is_an_error_and_then_replaced(
    kms: FakeKMS, clock: FakeClock
) -> None:
    one = signer(kms)
    await one.sign(MESSAGE)
    kms.fail_next(1, DecryptionError("decryption failed"), operation="decrypt")
    clock.advance(300)
    with pytest.raises(DecryptionError, match="no longer unwraps"):
        await one.sign(MESSAGE)
    await one.verify(MESSAGE, await one.sign(MESSAGE))


async def test_a_kms_that_unwraps_to_another_key_is_not_believed(kms: FakeKMS, clock: FakeClock) -> None:
    class Lying(Undescribed):
        async def lie(self, encrypted: EncryptedData, *, context: Any = None) -> bytes:
            return bytes(32)

    lying = Lying(kms)
    one = KmsSigner(lying, "aes", SignerSettings(clock=clock))
    await one.sign(MESSAGE)
    lying.decrypt = lying.lie
    clock.advance(300)
    with pytest.raises(DecryptionError):
        await one.sign(MESSAGE)


@each_key
async def test_f21_an_outage_is_no_invalid_signature(kms: FakeKMS, key_id: str) -> None:
    signature = await signer(kms, key_id).sign(MESSAGE)
    for failure in (OUTAGE, ProviderAuthError("denied"), KeyStateError("disabled"), KeyNotFoundError("gone")):
        kms.fail_always(failure)
        with pytest.raises((type(failure), ConfigurationError)) as caught:
            await signer(kms, key_id).verify(MESSAGE, signature)
        assert not isinstance(caught.value, InvalidSignatureError)
        kms.heal()
        await signer(kms, key_id).verify(MESSAGE, signature)


async def test_in_an_outage_session_keys_sign_for_the_grace(kms: FakeKMS, clock: FakeClock) -> None:
    one = signer(kms, grace_s=3600)
    await one.sign(MESSAGE)
    kms.fail_always()
    clock.advance(300 + 3599)
    await one.verify(MESSAGE, await one.sign(MESSAGE))
    clock.advance(1)
    with pytest.raises(ProviderConnectionError):
        await one.sign(MESSAGE)
    kms.heal()
    await one.verify(MESSAGE, await one.sign(MESSAGE))
    await one.aclose()


async def test_without_a_grace_session_keys_end_with_their_time(kms: FakeKMS, clock: FakeClock) -> None:
    one = signer(kms, grace_s=0)
    await one.sign(MESSAGE)
    kms.fail_always()
    clock.advance(300)
    with pytest.raises(ProviderConnectionError):
        await one.sign(MESSAGE)


async def test_a_disabled_key_ends_at_the_end_of_its_time_whatever_the_grace(kms: FakeKMS, clock: FakeClock) -> None:
    one = signer(kms, grace_s=None)
    await one.sign(MESSAGE)
    kms.disable("aes")
    clock.advance(300)
    with pytest.raises(KeyStateError):
        await one.sign(MESSAGE)
    kms.enable("aes")
    await one.verify(MESSAGE, await one.sign(MESSAGE))


async def test_a_rotation_check_during_an_outage_says_so(kms: FakeKMS) -> None:
    one = signer(kms)
    await one.sign(MESSAGE)
    kms.fail_always()
    with pytest.raises(ProviderConnectionError):
        await one.rotate_check()


async def test_f8_many_signers_at_once_draw_one_key(kms: FakeKMS) -> None:
    one = signer(kms)
    signatures = await asyncio.gather(*(one.sign(str(number).encode()) for number in range(200)))
    assert kms.calls["generate_data_key"] == 1
    assert len(set(signatures)) == 200


async def test_a_public_key_of_an_older_version_is_given_by_its_id(kms: FakeKMS) -> None:
    one = signer(kms, "signer")
    old = await one.sign_named(MESSAGE)
    await kms.rotate_key("signer")
    await one.rotate_check()
    keys: list[PublicKey] = [await one.public_key(key_id=old.key_id), await one.public_key()]
    assert [key.key_reference.key_version for key in keys] == ["1", "2"]


async def test_a_version_too_far_back_has_to_be_named(kms: FakeKMS, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("keystead.ledger.signers.native.MAX_OLDER", 2)
    old = await signer(kms, "signer").sign_named(MESSAGE)
    for _ in range(5):
        await kms.rotate_key("signer")
    with pytest.raises(KeyNotFoundError, match="name the version"):
        await signer(kms, "signer").verify(MESSAGE, old.signature)
    await signer(kms, "signer").verify(MESSAGE, old.signature, key_id=old.key_id)


async def test_a_rotation_that_was_noticed_in_passing_ends_the_session_key(kms: FakeKMS) -> None:
    one = signer(kms)
    old = await one.sign_named(MESSAGE)
    await kms.rotate_key("aes")
    await one._served.describe("aes", fresh=True)
    assert (await one.sign_named(MESSAGE)).key_id != old.key_id


async def test_a_session_key_that_another_thread_gives_up_is_replaced_and_not_signed_with(
    kms: FakeKMS, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = signer(kms)
    await one.sign(MESSAGE)
    current = one._sessions.current
    given: list[SessionKey] = []

    async def given_up_at_first(key_id: str) -> SessionKey:
        session = await current(key_id)
        if not given:
            session.wipe()
            one._sessions._current[key_id].expire()
            await kms.rotate_key(key_id)
            await one._served.describe(key_id, fresh=True)
        given.append(session)
        return session

    monkeypatch.setattr(one._sessions, "current", given_up_at_first)
    signature = await one.sign(MESSAGE)
    assert len(given) == 2
    await signer(kms).verify(MESSAGE, signature)


async def test_a_session_key_that_is_always_given_up_signs_nothing(
    kms: FakeKMS, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = signer(kms)
    session = await one._sessions.current("aes")
    session.wipe()
    with pytest.raises(SystemShutdownError):
        await one.sign(MESSAGE)


async def test_a_wrapped_key_of_another_size_is_invalid(kms: FakeKMS) -> None:
    context = {"keystead.purpose": "session"}
    short = await kms.encrypt(bytes(16), "aes", context=context)
    head = session_head(wrapped_bytes(short))
    with pytest.raises(InvalidSignatureError):
        await signer(kms).verify(MESSAGE, head + bytes(32))


async def test_a_kms_without_descriptions_signs_by_a_trusted_key_as_well(kms: FakeKMS) -> None:
    one = signer(Undescribed(kms), trusted_key_ids=("other-aes",))
    theirs = await one.sign_named(MESSAGE, key_id="other-aes")
    await one.verify(MESSAGE, theirs.signature, key_id=theirs.key_id)
    with pytest.raises(KeyNotFoundError):
        await one.verify(MESSAGE, theirs.signature, key_id="nothing")
