from __future__ import annotations

import doctest
import random
from collections.abc import Callable
from datetime import timedelta

import pytest

import keystead.testing
from keystead.errors import (
    DecryptionError,
    KeyNotFoundError,
    KeyStateError,
    KMSError,
    ProviderAuthError,
    ProviderConnectionError,
)
from keystead.model import KeyState
from keystead.testing import FakeKMS, fake_kms
from tests.fakes.clock import START, FakeClock

OUTAGE = ProviderConnectionError("the network is down")


@pytest.fixture
def kms(clock: FakeClock) -> FakeKMS:
    return FakeKMS(clock=clock)


@pytest.mark.parametrize("module", [fake_kms, keystead.testing])
def test_the_examples_in_the_docstrings_run(module: object) -> None:
    assert doctest.testmod(module).failed == 0  # type: ignore[arg-type]


async def test_clients_of_one_service_share_its_keys(kms: FakeKMS) -> None:
    sealed = await kms.provider("a").encrypt(b"value", "key")
    assert await kms.provider("b").decrypt(sealed) == b"value"


async def test_two_services_share_nothing(kms: FakeKMS) -> None:
    sealed = await kms.encrypt(b"value", "key")
    other = FakeKMS(keys=["key"])
    with pytest.raises(DecryptionError):
        await other.decrypt(sealed)


async def test_clients_are_told_apart_by_their_names(kms: FakeKMS) -> None:
    client = kms.provider("eu")
    assert (client.provider_name, (await client.encrypt(b"", "key")).key_reference.provider) == ("eu", "eu")


async def test_the_same_seed_gives_the_same_bytes(clock: FakeClock) -> None:
    first = await FakeKMS(random=random.Random(7).randbytes, clock=clock).encrypt(b"value", "key")
    second = await FakeKMS(random=random.Random(7).randbytes, clock=clock).encrypt(b"value", "key")
    assert first == second


async def test_every_call_is_counted_whatever_becomes_of_it(kms: FakeKMS) -> None:
    kms.fail_next(1, OUTAGE)
    with pytest.raises(ProviderConnectionError):
        await kms.encrypt(b"", "key")
    await kms.encrypt(b"", "key")
    await kms.describe("key")
    assert kms.calls == {"encrypt": 2, "describe": 1}


async def test_the_next_calls_fail_and_the_one_after_does_not(kms: FakeKMS) -> None:
    kms.fail_next(2, OUTAGE)
    for _ in range(2):
        with pytest.raises(ProviderConnectionError, match="the network is down"):
            await kms.describe("key")
    await kms.describe("key")


async def test_a_failure_may_be_meant_for_one_operation(kms: FakeKMS) -> None:
    kms.fail_next(1, OUTAGE, operation="describe")
    await kms.encrypt(b"", "key")
    with pytest.raises(ProviderConnectionError):
        await kms.describe("key")


async def test_an_outage_lasts_until_healed(kms: FakeKMS) -> None:
    kms.fail_always()
    for _ in range(3):
        with pytest.raises(ProviderConnectionError):
            await kms.encrypt(b"", "key")
    kms.heal()
    await kms.encrypt(b"", "key")


async def test_denied_is_not_retryable(kms: FakeKMS) -> None:
    kms.deny()
    with pytest.raises(ProviderAuthError) as caught:
        await kms.encrypt(b"", "key")
    assert not caught.value.retryable


async def test_a_disabled_key_is_described_and_does_nothing_else(kms: FakeKMS) -> None:
    sealed = await kms.encrypt(b"value", "key")
    kms.disable("key")
    assert (await kms.describe("key")).state is KeyState.DISABLED
    with pytest.raises(KeyStateError):
        await kms.decrypt(sealed)
    with pytest.raises(KeyStateError):
        await kms.rotate_key("key")
    await kms.encrypt(b"", "another key")
    kms.enable("key")
    assert await kms.decrypt(sealed) == b"value"


async def test_all_keys_can_be_disabled_at_once(kms: FakeKMS) -> None:
    kms.create_key("a")
    kms.create_key("b")
    kms.disable()
    for key_id in "ab":
        with pytest.raises(KeyStateError):
            await kms.encrypt(b"", key_id)


async def test_more_calls_a_second_than_the_rate_are_throttled(kms: FakeKMS, clock: FakeClock) -> None:
    kms.throttle(2)
    await kms.describe("key")
    await kms.describe("key")
    with pytest.raises(ProviderConnectionError, match="throttles"):
        await kms.describe("key")
    clock.advance(1)
    await kms.describe("key")


async def test_a_delay_is_waited_on_the_clock(kms: FakeKMS, clock: FakeClock) -> None:
    kms.delay_s = 30
    await kms.encrypt(b"", "key")
    assert clock.slept == [30]


async def test_an_unclear_rotation_happens_and_raises(kms: FakeKMS) -> None:
    kms.unclear_rotate = True
    with pytest.raises(ProviderConnectionError):
        await kms.rotate_key("key")
    assert (await kms.describe("key")).current_version == "2"


async def test_healing_turns_every_switch_off(kms: FakeKMS) -> None:
    kms.create_key("key")
    kms.fail_next(5, OUTAGE)
    kms.fail_always(OUTAGE)
    kms.deny()
    kms.disable()
    kms.throttle(0)
    kms.delay_s, kms.unclear_rotate = 5, True
    kms.heal()
    assert (await kms.rotate_key("key")).key_version == "2"


async def test_named_keys_are_the_only_ones(clock: FakeClock) -> None:
    kms = FakeKMS(keys=["key"], clock=clock)
    await kms.encrypt(b"", "key")
    with pytest.raises(KeyNotFoundError):
        await kms.encrypt(b"", "other")


async def test_a_decrypt_never_makes_a_key(kms: FakeKMS) -> None:
    sealed = await kms.encrypt(b"value", "key")
    with pytest.raises(KeyNotFoundError):
        await FakeKMS().decrypt(sealed)


async def test_an_answer_names_the_key_and_never_the_alias(kms: FakeKMS) -> None:
    kms.add_alias("alias/app", "key-1")
    sealed = await kms.encrypt(b"value", "alias/app")
    kms.add_alias("alias/app", "key-2")
    assert sealed.key_reference.key_id == "key-1"
    assert await kms.decrypt(sealed) == b"value"
    assert (await kms.describe("alias/app")).key_reference.key_id == "key-2"


async def test_versions_know_when_they_were_made(kms: FakeKMS, clock: FakeClock) -> None:
    kms.create_key("key")
    clock.advance(timedelta(days=1))
    rotated = await kms.rotate_key("key")
    assert (await kms.describe("key")).created_at == START
    assert rotated.created_at == START + timedelta(days=1)
    assert (await kms.get_rotation_policy("key")).last_rotation == START + timedelta(days=1)


async def test_the_errors_it_raises_by_itself_are_keysteads(kms: FakeKMS) -> None:
    kms.create_key("key")
    switches: list[Callable[[], None]] = [kms.fail_always, kms.deny, kms.disable, lambda: kms.throttle(0)]
    for switch in switches:
        switch()
        with pytest.raises(KMSError):
            await kms.encrypt(b"", "key")
        kms.heal()


async def test_closing_a_client_leaves_the_service_working(kms: FakeKMS) -> None:
    client = kms.provider()
    await client.aclose()
    await client.encrypt(b"", "key")
    assert repr(client) == "FakeKMSProvider('fake')"


async def test_single_operations_can_be_denied_and_the_permissions_say_so(kms: FakeKMS) -> None:
    sealed = await kms.encrypt(b"value", "key")
    kms.deny("decrypt", "rewrap")
    with pytest.raises(ProviderAuthError):
        await kms.decrypt(sealed)
    await kms.encrypt(b"value", "key")
    permissions = await kms.check_permissions("key")
    assert {operation for operation, is_allowed in permissions.items() if not is_allowed} == {"decrypt", "rewrap"}
    kms.heal()
    assert await kms.decrypt(sealed) == b"value"
    assert all((await kms.check_permissions("key")).values())


async def test_the_services_clock_can_be_wrong(kms: FakeKMS) -> None:
    assert await kms.service_time() == START
    kms.clock_skew_s = -90.0
    assert await kms.service_time() == START - timedelta(seconds=90)
    kms.heal()
    assert await kms.service_time() == START
