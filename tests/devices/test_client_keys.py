from __future__ import annotations

import asyncio
import threading
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from keystead.devices.issuing import BUSY_S, MOST_WAITING
from keystead.devices.pairs import Pair, make_pair
from keystead.devices.surroundings import DevicePolicy
from keystead.errors import (
    ConfigurationError,
    DecryptionError,
    ForbiddenError,
    InvalidInputError,
    KeyExpiredError,
    KeyNotFoundError,
    KMSError,
    RateLimitedError,
    StorageOperationError,
    StoreRestoredError,
)
from keystead.model import Principal
from keystead.ports import ClientKeyRecord, PairKind
from tests.devices.room import ADA, BOB, DAY, QUICK, SECOND, Maker, client_keys, disable_wrap, later, opens
from tests.fakes.clock import FakeClock
from tests.fakes.world import World, polled


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
            await keys.find(ADA, first.id)
        assert await opens(keys, ADA, second)


async def test_five_new_pairs_a_day_are_made_rotations_included_and_the_window_slides(
    world: World, clock: FakeClock
) -> None:
    async with world.open() as km, world.open() as other:
        keys, elsewhere = await client_keys(km), await client_keys(other)
        await keys.generate(ADA, "phone")
        for node in (keys, elsewhere, keys, elsewhere):
            clock.advance(timedelta(hours=1))
            await polled(km, other)
            await node.rotate(ADA, "phone")
        message = "^Rate limit for key generation exceeded. Try again in 1200 minutes$"
        with pytest.raises(RateLimitedError, match=message.replace(".", r"\.")) as caught:
            await keys.rotate(ADA, "phone")
        assert caught.value.retry_after_s == 20 * 3600
        newest = await elsewhere.generate(ADA, "phone")
        await keys.generate(ADA, "tablet")
        clock.advance(timedelta(hours=20))
        await polled(km, other)
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
            await keys.find(BOB, first.id)
        assert await keys.generate(ADA, "phone") == first
        assert (await keys.generate(Principal("bob", "north"), "phone")).id != first.id
        with pytest.raises(KeyNotFoundError):
            await keys.find(Principal("ada", "north"), first.id)


async def test_a_device_that_was_released_goes_to_the_next_who_gets_a_pair_of_his_own(world: World) -> None:
    async with world.open() as km:
        keys = await client_keys(km)
        first = await keys.generate(ADA, "phone")
        async with world.store.transaction() as work:
            assert await work.change_device("", "phone", owner=None, revoked_at=None)
        second = await keys.generate(BOB, "phone")
        assert second.id != first.id
        with pytest.raises(KeyNotFoundError):
            await keys.find(BOB, first.id)
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


async def test_a_private_half_in_another_row_does_not_open(world: World) -> None:
    async with world.open() as km:
        keys = await client_keys(km)
        first, second = await keys.generate(ADA, "phone"), await keys.generate(ADA, "tablet")
        moved = await client_keys(km)
        assert first.wrapped_private_key is not None
        with pytest.raises(StorageOperationError, match="does not open"):
            await moved.open(replace(second, wrapped_private_key=first.wrapped_private_key))


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


async def test_fifty_who_ask_one_node_at_once_have_one_pair_made(world: World) -> None:
    async with world.open() as km:
        maker = Maker()
        keys = await client_keys(km, make_pair=maker)
        answers = await asyncio.gather(*(keys.generate(ADA, "phone") for _ in range(50)))
        assert len({answer.id for answer in answers}) == 1
        assert maker.made == 1


async def test_a_user_gets_no_more_new_pairs_than_one_user_does_whatever_devices_he_names(
    world: World, clock: FakeClock
) -> None:
    policy = DevicePolicy(kind=PairKind.X25519, max_new_of_user=3)
    async with world.open() as km, world.open() as other:
        nodes = [await client_keys(km, policy), await client_keys(other, policy)]
        asked = [nodes[number % 2].generate(ADA, f"phone {number}") for number in range(12)]
        answers = await asyncio.gather(*asked, return_exceptions=True)
        refused = [answer for answer in answers if isinstance(answer, RateLimitedError)]
        assert (len(refused), refused[0].retry_after_s) == (9, DAY.total_seconds())
        await nodes[0].generate(BOB, "another phone")
        await nodes[0].generate(Principal("ada", "north"), "phone")
        clock.advance(DAY)
        await polled(km, other)
        await nodes[1].generate(ADA, "another phone of mine")


async def test_all_together_get_no_more_new_pairs_than_can_be_made(world: World, clock: FakeClock) -> None:
    policy = DevicePolicy(kind=PairKind.X25519, max_new_in_all=4)
    async with world.open() as km:
        keys = await client_keys(km, policy)
        for number in range(4):
            await keys.generate(Principal(f"user {number}"), f"phone {number}")
        with pytest.raises(RateLimitedError, match="in 1 minutes"):
            await keys.generate(BOB, "phone")
        assert (await keys.generate(Principal("user 3"), "phone 3")).owner == "user 3"
        clock.advance(timedelta(minutes=1))
        await keys.generate(BOB, "phone")


async def test_who_asks_for_more_pairs_than_can_be_made_soon_is_told_so_at_once(world: World) -> None:
    async with world.open() as km:
        go_on = threading.Event()

        def slowly(kind: PairKind) -> Pair:
            assert go_on.wait(60)
            return make_pair(kind)

        policy = DevicePolicy(kind=PairKind.X25519, max_new_of_user=200)
        keys = await client_keys(km, policy, make_pair=slowly)
        asked = [asyncio.ensure_future(keys.generate(ADA, f"phone {number}")) for number in range(MOST_WAITING + 1)]
        await asyncio.wait(asked, return_when=asyncio.FIRST_EXCEPTION)
        go_on.set()
        answers = await asyncio.gather(*asked, return_exceptions=True)
        (refused,) = (answer for answer in answers if not isinstance(answer, ClientKeyRecord))
        assert isinstance(refused, RateLimitedError)
        assert "too many key pairs are being made" in str(refused)
        assert refused.retry_after_s == BUSY_S


async def test_a_half_whose_wrap_key_was_taken_out_of_use_is_not_opened_even_if_it_was_before(world: World) -> None:
    async with world.open() as km:
        keys = await client_keys(km)
        first = await keys.generate(ADA, "phone")
        assert await opens(keys, ADA, first)
        await disable_wrap(world, km, first)
        with pytest.raises(KMSError) as caught:
            await opens(keys, ADA, first)
        assert not isinstance(caught.value, DecryptionError)
