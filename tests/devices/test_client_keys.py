from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from keystead.devices.client_keys import ClientKeys, Upkeep
from keystead.devices.pairs import Algorithm, encrypt_to
from keystead.devices.surroundings import DevicePolicy, Principal
from keystead.errors import (
    ConfigurationError,
    DecryptionError,
    ForbiddenError,
    InvalidInputError,
    KeyExpiredError,
    KeyInUseError,
    KeyNotFoundError,
    RateLimitedError,
    StoreRestoredError,
)
from keystead.manager.manager import KeyManager
from keystead.ports import ClientKeyRecord, PairKind
from tests.devices.conftest import QUICK, Maker, client_keys
from tests.fakes.clock import FakeClock
from tests.fakes.world import World, polled, session_of

ADA, BOB = Principal("ada"), Principal("bob")
DAY, SECOND = timedelta(days=1), timedelta(seconds=1)


async def opens(keys: ClientKeys, who: Principal, key: ClientKeyRecord) -> bool:
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_public_key

    public = load_pem_public_key(key.public_key.encode()).public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    algorithm = Algorithm.HPKE_X25519 if key.kind is PairKind.X25519 else Algorithm.RSA_OAEP_SHA1
    _, opened = await keys.open(who, key.id)
    return opened.open(encrypt_to(public, b"secret", algorithm), algorithm) == b"secret"


async def later(km: KeyManager, clock: FakeClock, by: timedelta) -> None:
    """Let time pass, and the node look at its store and KMS."""
    clock.advance(by)
    await polled(km)


async def test_a_device_gets_one_pair_however_often_it_asks(world: World) -> None:
    async with world.open() as km:
        keys = await client_keys(km)
        first = await keys.generate(ADA, "phone", app_version="1.2")
        assert [await keys.generate(ADA, "phone") for _ in range(9)] == [first] * 9
        assert await opens(keys, ADA, first)
        assert (first.owner, first.app_version, first.deprecated) == ("ada", "1.2", False)


async def test_a_pair_is_rsa_2048_unless_another_kind_is_asked_for(world: World) -> None:
    async with world.open() as km:
        keys = await client_keys(km, DevicePolicy())
        first, other = await keys.generate(ADA, "phone"), await keys.generate(ADA, "phone", kind=PairKind.X25519)
        assert (first.kind, other.kind) == (PairKind.RSA_2048, PairKind.X25519)
        assert (await keys.generate(ADA, "phone")).id == first.id
        assert await opens(keys, ADA, first)
        assert await opens(keys, ADA, other)


async def test_a_pair_that_was_replaced_decrypts_and_is_not_handed_out(world: World) -> None:
    async with world.open() as km:
        keys = await client_keys(km)
        other = await keys.generate(ADA, "tablet")
        first = await keys.generate(ADA, "phone")
        second = await keys.rotate(ADA, "phone")
        assert second.id != first.id
        assert (await keys.generate(ADA, "phone")).id == second.id
        assert await opens(keys, ADA, first)
        assert (await keys.generate(ADA, "tablet")).id == other.id


async def test_a_pair_is_handed_out_for_its_lifetime_and_decrypts_for_the_grace_more(
    world: World, clock: FakeClock
) -> None:
    async with world.open() as km:
        keys = await client_keys(km)
        first = await keys.generate(ADA, "phone")
        assert first.expires_at == clock.now() + 30 * DAY
        await later(km, clock, 30 * DAY - SECOND)
        assert (await keys.generate(ADA, "phone")).id == first.id
        await later(km, clock, 2 * SECOND)
        second = await keys.generate(ADA, "phone")
        assert second.id != first.id
        assert await opens(keys, ADA, first)
        await later(km, clock, timedelta(minutes=5))
        with pytest.raises(KeyExpiredError, match="Encryption key has expired"):
            await keys.open(ADA, first.id)
        assert await opens(keys, ADA, second)


async def test_upkeep_erases_private_halves_keeps_their_ids_and_forgets_these_in_the_end(
    world: World, clock: FakeClock
) -> None:
    async with world.open() as km:
        keys = await client_keys(km)
        first = await keys.generate(ADA, "phone")
        assert await keys.upkeep() == Upkeep()
        clock.advance(30 * DAY)
        assert await keys.upkeep() == Upkeep(deprecated=1)
        clock.advance(timedelta(minutes=5))
        assert await keys.upkeep() == Upkeep(erased=1)
        async with world.store.reading() as work:
            found = await work.find_client_key(first.id)
        assert found is not None
        assert (found.wrapped_private_key, found.wrapped_by, found.deprecated) == (None, None, True)
        with pytest.raises(KeyExpiredError):
            await keys.open(ADA, first.id)
        clock.advance(90 * DAY - timedelta(minutes=5) - SECOND)
        assert await keys.upkeep() == Upkeep()
        clock.advance(SECOND)
        assert await keys.upkeep() == Upkeep(dropped=1)
        with pytest.raises(KeyNotFoundError, match="Encryption key not found"):
            await keys.open(ADA, first.id)


async def test_five_new_pairs_a_day_are_made_rotations_included_and_the_window_slides(
    world: World, clock: FakeClock
) -> None:
    async with world.open() as km, world.open() as other:
        keys, elsewhere = await client_keys(km), await client_keys(other)
        await keys.generate(ADA, "phone")
        for node in (keys, elsewhere, keys, elsewhere):
            clock.advance(timedelta(hours=1))
            await node.rotate(ADA, "phone")
        message = "^Rate limit for key generation exceeded. Try again in 1200 minutes$"
        with pytest.raises(RateLimitedError, match=message.replace(".", r"\.")) as caught:
            await keys.rotate(ADA, "phone")
        assert caught.value.retry_after_s == 20 * 3600
        newest = await elsewhere.generate(ADA, "phone")
        await keys.generate(ADA, "tablet")
        clock.advance(timedelta(hours=20))
        assert (await keys.rotate(ADA, "phone")).id != newest.id
        with pytest.raises(RateLimitedError, match="in 60 minutes"):
            await elsewhere.rotate(ADA, "phone")


async def test_of_many_who_ask_at_once_on_several_nodes_no_more_than_five_get_a_new_pair(world: World) -> None:
    async with world.open() as km, world.open() as other:
        nodes = [await client_keys(km), await client_keys(other)]
        asked = [nodes[number % 2].rotate(ADA, "phone") for number in range(20)]
        answers = await asyncio.gather(*asked, return_exceptions=True)
        made = {answer.id for answer in answers if isinstance(answer, ClientKeyRecord)}
        assert len(made) == 5
        assert sum(isinstance(answer, RateLimitedError) for answer in answers) == 15
        async with world.store.reading() as work:
            rows = await work.client_keys("", "phone")
        assert {row.id for row in rows} == made
        assert sum(not row.deprecated for row in rows) == 1


async def test_fifty_who_ask_at_once_get_one_and_the_same_pair(world: World) -> None:
    async with world.open() as km, world.open() as other:
        nodes = [await client_keys(km), await client_keys(other)]
        answers = await asyncio.gather(*(nodes[number % 2].generate(ADA, "phone") for number in range(50)))
        assert len({answer.id for answer in answers}) == 1
        async with world.store.reading() as work:
            assert len(await work.client_keys("", "phone")) == 1


async def test_a_device_belongs_to_the_first_who_used_it(world: World) -> None:
    async with world.open() as km:
        keys = await client_keys(km)
        first = await keys.generate(ADA, "phone")
        for act in (keys.generate, keys.rotate):
            with pytest.raises(ForbiddenError, match="somebody else's"):
                await act(BOB, "phone")
        with pytest.raises(KeyNotFoundError, match="Encryption key not found"):
            await keys.open(BOB, first.id)
        assert await keys.generate(ADA, "phone") == first
        assert (await keys.generate(Principal("bob", "north"), "phone")).id != first.id
        with pytest.raises(KeyNotFoundError):
            await keys.open(Principal("ada", "north"), first.id)


async def test_a_device_that_was_released_goes_to_the_next_who_gets_a_pair_of_his_own(world: World) -> None:
    async with world.open() as km:
        keys = await client_keys(km)
        first = await keys.generate(ADA, "phone")
        async with world.store.transaction() as work:
            assert await work.change_device("", "phone", owner=None, revoked_at=None)
        second = await keys.generate(BOB, "phone")
        assert second.id != first.id
        with pytest.raises(KeyNotFoundError):
            await keys.open(BOB, first.id)
        with pytest.raises(ForbiddenError):
            await keys.generate(ADA, "phone")


async def test_a_revoked_device_gets_nothing(world: World, clock: FakeClock) -> None:
    async with world.open() as km:
        keys = await client_keys(km)
        await keys.generate(ADA, "phone")
        async with world.store.transaction() as work:
            assert await work.change_device("", "phone", owner="ada", revoked_at=clock.now())
        with pytest.raises(ForbiddenError, match="revoked"):
            await keys.generate(ADA, "phone")


async def test_pairs_that_are_ready_are_given_without_making_one(world: World) -> None:
    async with world.open() as km:
        maker = Maker()
        keys = await client_keys(km, make_pair=maker)
        assert await keys.fill(PairKind.X25519, 3) == 3
        assert await keys.fill(PairKind.X25519, 3) == 0
        given = [await keys.generate(ADA, f"phone {number}") for number in range(3)]
        assert maker.made == 3
        assert [await opens(keys, ADA, key) for key in given] == [True] * 3
        await keys.generate(ADA, "another phone")
        assert maker.made == 4


@pytest.mark.parametrize("damage", ["another row's", "of a WRAP key that is gone", "no envelope"])
async def test_a_pair_that_was_ready_and_does_not_open_is_passed_over(
    world: World, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with world.open() as km:
        maker = Maker()
        keys = await client_keys(km, make_pair=maker)
        await keys.fill(PairKind.X25519, 1)
        async with world.store.transaction() as work:
            pair = await work.take_ready_pair(PairKind.X25519)
            assert pair is not None
            whole = pair.wrapped_private_key
            if damage == "another row's":
                await work.add_ready_pair(replace(pair, id="key_other"))
            else:
                wrong = (
                    whole[:2] + bytes(7) + b"\x05" + whole[10:] if damage.startswith("of a WRAP") else b"no envelope"
                )
                await work.add_ready_pair(replace(pair, wrapped_private_key=wrong))
        assert await opens(keys, ADA, await keys.generate(ADA, "phone"))
        assert maker.made == 2
        assert "does not open" in caplog.text
        async with world.store.reading() as work:
            assert await work.count_ready_pairs(PairKind.X25519) == 0


async def test_a_pair_that_nobody_opens_is_not_taken_from_those_that_are_ready(world: World) -> None:
    async with world.open() as km:
        keys = await client_keys(km)
        await keys.fill(PairKind.X25519, 1)
        for _ in range(3):
            await keys.generate(ADA, "phone", kind=PairKind.RSA_2048)
        async with world.store.reading() as work:
            assert await work.count_ready_pairs(PairKind.X25519) == 1


async def test_a_private_half_in_another_row_does_not_open(world: World) -> None:
    async with world.open() as km:
        keys = await client_keys(km)
        first, second = await keys.generate(ADA, "phone"), await keys.generate(ADA, "tablet")
        moved = await client_keys(km)
        assert first.wrapped_private_key is not None
        with pytest.raises(DecryptionError):
            await moved._opened(second, first.wrapped_private_key)


async def test_a_wrap_key_of_private_halves_still_opens_them_once_it_is_replaced_and_is_not_destroyed(
    world: World,
) -> None:
    async with world.open() as km:
        keys = await client_keys(km)
        first = await keys.generate(ADA, "phone")
        await keys.fill(PairKind.X25519, 1)
        await (await session_of(km)).lifecycle.rewrap.run()
        assert await opens(await client_keys(km), ADA, first)
        second = await keys.generate(ADA, "tablet")
        assert second.wrapped_by != first.wrapped_by
        assert await opens(keys, ADA, second)
        assert first.wrapped_by is not None
        with pytest.raises(KeyInUseError, match=r"private halves of 1 key pair\(s\)"):
            await (await session_of(km)).lifecycle.destruction.schedule(first.wrapped_by)
    async with world.open() as later:
        assert await opens(await client_keys(later), ADA, first)


async def test_a_restored_store_gives_no_new_pair_and_still_opens(world: World) -> None:
    async with world.open() as km:
        keys = await client_keys(km)
        first = await keys.generate(ADA, "phone")
        async with world.store.transaction() as work:
            await work.set_restored(True)
        await (await km.session()).poll()
        with pytest.raises(StoreRestoredError):
            await keys.generate(ADA, "tablet")
        assert await opens(keys, ADA, first)


@pytest.mark.parametrize("device", ["", "a\n", "x" * 129])
async def test_a_device_id_that_is_none_is_refused_before_anything_is_read(world: World, device: str) -> None:
    async with world.open() as km:
        keys = await client_keys(km)
        with pytest.raises(InvalidInputError, match="deviceId"):
            await keys.generate(ADA, device)
        with pytest.raises(InvalidInputError, match="appVersion"):
            await keys.generate(ADA, "phone", app_version=device)


def test_a_policy_that_cannot_be_is_refused() -> None:
    refused: tuple[dict[str, Any], ...] = (
        {"lifetime": timedelta(0)},
        {"retention": -DAY},
        {"decrypt_grace": 91 * DAY},
        {"max_new": 0},
        {"window": timedelta(0)},
    )
    for wrong in refused:
        with pytest.raises(ConfigurationError):
            DevicePolicy(**wrong)
    assert QUICK.max_new == 5
