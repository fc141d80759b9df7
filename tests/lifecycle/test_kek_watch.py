"""How long keys are used without a yes from the KMS."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from keystead.errors import (
    KeyDecryptionFailError,
    KeyNotFoundError,
    KeyStateError,
    KMSError,
    ProviderAuthError,
    ProviderConnectionError,
    StoreUnavailableError,
)
from keystead.lifecycle.kek_watch import RETRY_REFUSED_S, RETRY_S
from keystead.manager.manager import KeyManager
from keystead.model import WRAP_KEYRING, DataKeyState
from keystead.testing.fake_kms import FakeKMS
from tests.fakes.clock import FakeClock
from tests.fakes.world import CountingStore, World, polled, session_of

HOUR = 3600.0


def works(km: KeyManager, sealed: bytes) -> bool:
    """Tell whether both directions work, or both fail closed with one error."""
    try:
        plaintext = km.local_decrypt(sealed)
    except KMSError as refusal:
        with pytest.raises(type(refusal)):
            km.local_encrypt(b"y")
        with pytest.raises(type(refusal)):
            km.hash_field(b"y")
        return False
    assert plaintext == b"x"
    assert km.local_decrypt(km.local_encrypt(b"y")) == b"y"
    return True


async def test_the_kms_is_asked_again_every_hour(world: World, clock: FakeClock) -> None:
    async with world.open() as km:
        for _ in range(5):
            clock.advance(HOUR)
            await polled(km)
            await polled(km)
    assert world.kms.calls["decrypt"] == 5


async def test_an_outage_is_outlasted_for_the_grace_and_then_everything_fails_closed(
    world: World, clock: FakeClock
) -> None:
    async with world.open() as km:
        sealed = km.local_encrypt(b"x")
        world.kms.fail_always()
        for _ in range(119):
            clock.advance(60)
            await polled(km)
            assert works(km, sealed)
        clock.advance(120)
        await polled(km)
        assert not works(km, sealed)
        with pytest.raises(ProviderConnectionError, match="has not confirmed"):
            km.local_decrypt(sealed)
        world.kms.heal()
        clock.advance(RETRY_REFUSED_S)
        await polled(km)
        assert works(km, sealed)


async def test_a_short_outage_is_over_soon_after_the_kms_is_back(world: World, clock: FakeClock) -> None:
    async with world.open() as km:
        sealed = km.local_encrypt(b"x")
        clock.advance(HOUR)
        world.kms.fail_always()
        await polled(km)
        world.kms.heal()
        world.kms.calls.clear()
        await polled(km)
        assert world.kms.calls["decrypt"] == 0
        clock.advance(RETRY_S)
        await polled(km)
        assert world.kms.calls["decrypt"] == 1
        clock.advance(HOUR - 1)
        await polled(km)
        assert world.kms.calls["decrypt"] == 1
        assert works(km, sealed)


async def test_without_a_grace_an_outage_is_felt_at_the_recheck_and_with_an_endless_one_never(
    world: World, clock: FakeClock
) -> None:
    async with world.open(grace_s=0, kek_recheck_s=60) as strict, world.open(grace_s=None, kek_recheck_s=60) as patient:
        sealed = strict.local_encrypt(b"x")
        world.kms.fail_always()
        clock.advance(61)
        await polled(strict, patient)
        assert not works(strict, sealed)
        clock.advance(1000 * HOUR)
        await polled(patient)
        assert works(patient, sealed)


async def test_what_is_never_polled_fails_closed_all_the_same(world: World, clock: FakeClock) -> None:
    async with world.open() as km:
        sealed = km.local_encrypt(b"x")
        ring = await km.keyring("tenant")
        clock.advance(2 * HOUR + 1)
        with pytest.raises(ProviderConnectionError):
            ring.local_encrypt(b"first message, no nonce drawn yet")
        km.default.ring.block()
        assert not works(km, sealed)


REFUSALS: dict[str, tuple[Callable[[FakeKMS], object], type[KMSError]]] = {
    "denied": (lambda kms: kms.deny(), ProviderAuthError),
    "disabled": (lambda kms: kms.disable(), KeyStateError),
    "destroyed": (lambda kms: kms.fail_always(KeyNotFoundError("no such key")), KeyNotFoundError),
}


@pytest.mark.parametrize(("refuse", "expected"), REFUSALS.values(), ids=REFUSALS)
async def test_a_refusal_is_no_outage_and_ends_use_at_once(
    world: World, clock: FakeClock, refuse: Callable[[FakeKMS], object], expected: type[KMSError]
) -> None:
    async with world.open() as km:
        sealed = km.local_encrypt(b"x")
        tenant = await km.keyring("tenant")
        refuse(world.kms)
        await polled(km)
        assert works(km, sealed)
        clock.advance(HOUR)
        await polled(km)
        for _ in range(2):
            assert not works(km, sealed)
            with pytest.raises(expected):
                tenant.local_encrypt(b"x")
            with pytest.raises(expected):
                await km.decrypt_local(sealed)
        world.kms.heal()
        await polled(km)
        assert not works(km, sealed)
        clock.advance(RETRY_REFUSED_S)
        await polled(km)
        assert works(km, sealed)
        assert tenant.local_decrypt(tenant.local_encrypt(b"x")) == b"x"


async def test_a_kms_that_unwraps_to_another_key_ends_use(world: World, clock: FakeClock) -> None:
    async with world.open() as km:
        sealed = km.local_encrypt(b"x")

        async def other(*arguments: object, **options: object) -> bytes:
            return bytes(32)

        world.kms.decrypt = other  # type: ignore[method-assign]
        clock.advance(HOUR)
        await polled(km)
        with pytest.raises(KeyDecryptionFailError, match="another key"):
            km.local_decrypt(sealed)


async def test_a_store_that_is_away_is_no_answer_of_the_kms(world: World, clock: FakeClock) -> None:
    world.store = store = CountingStore(world.store)
    async with world.open() as km:
        sealed = km.local_encrypt(b"x")
        session = await session_of(km)
        ring = await session.live.wrap_ring(WRAP_KEYRING)
        ring.snapshot = type(ring.snapshot)(ring.snapshot.keys)
        store.failure = StoreUnavailableError("away")
        clock.advance(HOUR)
        await session.kek_watch.ask()
        store.failure = None
        assert works(km, sealed)
        clock.advance(RETRY_S)
        assert session.kek_watch.is_due
        await session.kek_watch.ask()
        assert ring.snapshot.active_key is not None
        assert not session.kek_watch.is_due


async def test_a_wrap_version_that_could_not_be_unwrapped_when_it_became_active_is_unwrapped_by_the_recheck(
    world: World, clock: FakeClock
) -> None:
    async with world.open() as km, world.open() as other:
        sealed = km.local_encrypt(b"x")
        await (await session_of(other)).lifecycle.rotation.rotate(WRAP_KEYRING)
        world.kms.fail_always(KeyStateError("disabled for a moment"))
        await polled(km)
        assert works(km, sealed)
        clock.advance(HOUR)
        await polled(km)
        assert not works(km, sealed)
        world.kms.heal()
        clock.advance(RETRY_REFUSED_S)
        await polled(km)
        assert works(km, sealed)


async def test_a_store_without_an_active_wrap_key_ends_use(world: World, clock: FakeClock) -> None:
    async with world.open() as km:
        km.local_encrypt(b"x")
        [row] = await world.rows(WRAP_KEYRING)
        async with world.store.transaction() as work:
            epoch = await work.bump_epoch()
            await work.change_key(row.id, row.state, state=DataKeyState.DECRYPT_ONLY, published_epoch=epoch)
        clock.advance(HOUR)
        await polled(km)
        with pytest.raises(KeyStateError, match="no active WRAP key"):
            km.local_encrypt(b"x")
