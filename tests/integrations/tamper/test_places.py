"""What every key provider of the fapilog-tamper design does alike, on the real components."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from keystead.errors import KeyNotExportableError, KeyNotFoundError, KMSError, SystemShutdownError
from keystead.integrations.tamper import KeyProvider
from keystead.integrations.tamper_faces import KeyFace
from keystead.ports import AuditEvent
from tests.fakes.clock import FakeClock
from tests.integrations.tamper.places import Place

MESSAGE = b"what happened"
Make = Callable[..., KeyFace]

pytestmark = pytest.mark.filterwarnings("ignore::keystead.errors.HardcodedCredentialWarning")


def flipped(signature: bytes, position: int) -> bytes:
    altered = bytearray(signature)
    altered[position] ^= 1
    return bytes(altered)


async def test_what_is_signed_verifies_and_nothing_else(place: Place, provider_of: Make) -> None:
    provider, other = provider_of(place), provider_of(place)
    for message in (b"", MESSAGE, bytes(10_000)):
        signature = await provider.sign(place.key_id, message)
        assert await other.verify(place.key_id, message, signature)
        assert not await other.verify(place.key_id, message + b"!", signature)
        assert not await other.verify(place.key_id, message, flipped(signature, len(signature) - 2))
        assert not await other.verify(place.key_id, message, b"")


async def test_f24_the_recorded_key_id_names_a_version(place: Place, provider_of: Make) -> None:
    provider = provider_of(place)
    signed = await provider.sign_named(place.key_id, MESSAGE)
    assert signed.key_id == await provider.current_key_id(place.key_id)
    assert signed.key_id != place.key_id
    assert await provider_of(place).verify(signed.key_id, MESSAGE, signed.signature)


async def test_key_rotation_detection(place: Place, provider_of: Make) -> None:
    provider = provider_of(place)
    old = await provider.sign_named(place.key_id, MESSAGE)
    assert not await provider.rotate_check()
    place.rotate()
    assert await provider.rotate_check()
    assert not await provider.rotate_check()
    new = await provider.sign_named(place.key_id, MESSAGE)
    assert new.key_id == await provider.current_key_id(place.key_id) != old.key_id


async def test_multi_key_verification(place: Place, provider_of: Make) -> None:
    provider = provider_of(place)
    signed = [await provider.sign_named(place.key_id, MESSAGE)]
    for _ in range(2):
        place.rotate()
        await provider.rotate_check()
        signed.append(await provider.sign_named(place.key_id, MESSAGE))
    assert len({each.key_id for each in signed}) == 3
    fresh = provider_of(place)
    for each in (signed[0], signed[-1]):
        for verifier in (provider, fresh):
            assert await verifier.verify(each.key_id, MESSAGE, each.signature)
            assert await verifier.verify(place.key_id, MESSAGE, each.signature)


async def test_f6_the_version_that_is_named_counts(place: Place, provider_of: Make) -> None:
    provider = provider_of(place)
    old = await provider.sign_named(place.key_id, MESSAGE)
    place.rotate()
    await provider.rotate_check()
    new = await provider.sign_named(place.key_id, MESSAGE)
    assert not await provider.verify(new.key_id, MESSAGE, old.signature)
    assert not await provider.verify(old.key_id, MESSAGE, new.signature)


async def test_f4_signatures_verify_after_the_time_of_the_key_is_over(
    place: Place, provider_of: Make, clock: FakeClock
) -> None:
    provider = provider_of(place)
    before = await provider.sign(place.key_id, MESSAGE)
    clock.advance(1000)
    after = await provider.sign(place.key_id, MESSAGE)
    for signature in (before, after):
        assert await provider.verify(place.key_id, MESSAGE, signature)


async def test_f9_each_item_of_a_batch_verifies_alone(place: Place, provider_of: Make) -> None:
    provider, verifier = provider_of(place), provider_of(place)
    items = [str(number).encode() * number for number in range(6)]
    signatures = await provider.sign_batch(place.key_id, items)
    for item, signature in zip(items, signatures, strict=True):
        assert await verifier.verify(place.key_id, item, signature)
    assert not await verifier.verify(place.key_id, items[1], signatures[2])


async def test_f9_a_key_is_given_where_it_may_leave_and_refused_where_not(place: Place, provider_of: Make) -> None:
    provider = provider_of(place)
    if place.is_exportable:
        key = await provider.get_key(place.key_id)
        assert (len(key), repr(key)) == (32, "SecretBytes(hidden)")
        assert await provider.get_key(place.key_id) == key
    else:
        with pytest.raises(KeyNotExportableError):
            await provider.get_key(place.key_id)


async def test_f21_a_service_that_is_away_is_no_invalid_signature(place: Place, provider_of: Make) -> None:
    if place.fail is None:
        return
    signature = await provider_of(place).sign(place.key_id, MESSAGE)
    place.fail()
    with pytest.raises(KMSError) as caught:
        await provider_of(place).verify(place.key_id, MESSAGE, signature)
    assert caught.value.retryable
    place.heal()
    assert await provider_of(place).verify(place.key_id, MESSAGE, signature)


async def test_f6_an_id_of_another_key_is_refused(place: Place, provider_of: Make) -> None:
    if place.kind in {"EnvKeyProvider", "FileKeyProvider"}:
        provider = provider_of(place, key_id="audit")
    else:
        provider = provider_of(place)
    for name in ("another", "../evil"):
        with pytest.raises(KeyNotFoundError):
            await provider.verify(name, MESSAGE, b"signature")


async def test_every_use_is_audited_and_none_a_record(place: Place, provider_of: Make) -> None:
    events: list[AuditEvent] = []
    provider = provider_of(place, audit=events.append)
    await provider.sign(place.key_id, MESSAGE)
    place.rotate()
    await provider.rotate_check()
    await provider.sign(place.key_id, MESSAGE)
    assert {event.details["outcome"] for event in events} == {"ok"}
    assert "key.rotate" in [event.action for event in events]
    assert len(events) <= 5


async def test_f22_nothing_works_after_close_and_no_text_shows_a_key(place: Place, provider_of: Make) -> None:
    provider = provider_of(place)
    await provider.sign(place.key_id, MESSAGE)
    assert "hidden" in repr(provider)
    with pytest.raises(TypeError):
        provider.__reduce_ex__(4)
    await provider.aclose()
    await provider.aclose()
    with pytest.raises(SystemShutdownError):
        await provider.sign(place.key_id, MESSAGE)


def test_every_provider_is_a_key_provider_and_makes_no_call_at_construction(place: Place) -> None:
    assert isinstance(place.provider(), KeyProvider)


def test_the_protocol_has_the_documents_members() -> None:
    members = {"get_key", "sign", "verify", "rotate_check", "sign_batch"}
    assert members <= set(vars(KeyProvider))


async def test_the_empty_id_is_the_providers_own_key(place: Place, provider_of: Make) -> None:
    provider: Any = provider_of(place)
    assert await provider.verify("", MESSAGE, await provider.sign("", MESSAGE))
