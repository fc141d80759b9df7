"""How many new pairs there are: for a device, for a user and in all, over all nodes and restarts."""

from __future__ import annotations

import asyncio
import gc
import threading
import tracemalloc
from datetime import timedelta

import pytest

from keystead.devices.client_keys import ClientKeys
from keystead.devices.issuing import BUSY_S, MOST_WAITING
from keystead.devices.metrics import Metrics
from keystead.devices.pairs import Pair, make_pair
from keystead.devices.surroundings import DevicePolicy
from keystead.errors import RateLimitedError
from keystead.model import Principal
from keystead.ports import ClientKeyRecord, PairKind
from keystead.stores.tables import client_devices, client_encryption_keys
from tests.devices.room import ADA, BOB, DAY, client_keys, surroundings
from tests.fakes.clock import FakeClock
from tests.fakes.world import World, polled
from tests.stores.test_metric_rows import rows

KEEPERS = [tracemalloc.Filter(True, f"*/{room}/*.py") for room in ("keystead/devices", "keystead/runtime")]
KEEPERS.append(tracemalloc.Filter(True, __file__))
"""Whose memory grows where ids are kept, that of the tests among it: it makes the ids."""


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


async def test_a_restart_gives_a_device_no_more_new_pairs(world: World) -> None:
    async with world.open() as km:
        keys = await client_keys(km)
        given = [await keys.rotate(ADA, "phone") for _ in range(5)]
    async with world.open() as km:
        keys = await client_keys(km)
        with pytest.raises(RateLimitedError) as caught:
            await keys.rotate(ADA, "phone")
        assert caught.value.retry_after_s == DAY.total_seconds()
        assert (await keys.generate(ADA, "phone")).id == given[-1].id


async def test_device_ids_without_number_take_neither_rows_nor_memory(world: World) -> None:
    policy = DevicePolicy(kind=PairKind.X25519, max_new_of_user=2)
    async with world.open() as km:
        keys = ClientKeys(await surroundings(km, policy), Metrics(world.store, world.clock, capacity=10))

        async def asked(numbers: range) -> int:
            """Ask for a pair for each, and return how many there were."""
            refused = 0
            for number in numbers:
                try:
                    await keys.generate(ADA, f"{number:0128d}")
                except RateLimitedError:
                    refused += 1
            return len(numbers) - refused

        assert await asked(range(20)) == 2
        tracemalloc.start()
        try:
            assert await asked(range(20, 120)) == 0
            gc.collect()
            kept = tracemalloc.take_snapshot().filter_traces(KEEPERS)
        finally:
            tracemalloc.stop()
        # An id alone has more than a hundred bytes.
        assert sum(each.size for each in kept.traces) < 100 * 100
    assert len(await rows(world.store, client_devices)) == len(await rows(world.store, client_encryption_keys)) == 2


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
