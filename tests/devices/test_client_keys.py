from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from keystead.crypto.keyring import Keyring
from keystead.devices import client_keys as client_keys_module
from keystead.devices.halves import Half, open_half
from keystead.devices.pairs import OpenKey
from keystead.devices.surroundings import DevicePolicy
from keystead.errors import (
    ConfigurationError,
    DecryptionError,
    ForbiddenError,
    InvalidInputError,
    KeyExpiredError,
    KeyNotFoundError,
    KMSError,
    StorageOperationError,
    StoreRestoredError,
)
from keystead.model import Principal
from keystead.ports import PairKind
from keystead.stores.tables import client_devices
from tests.devices.room import (
    ADA,
    BOB,
    DAY,
    MINUTE,
    QUICK,
    SECOND,
    Maker,
    client_keys,
    disable_wrap,
    later,
    opens,
)
from tests.fakes.clock import FakeClock
from tests.fakes.world import World
from tests.stores.test_metric_rows import rows


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


async def test_a_private_half_is_opened_once_and_no_more_are_kept_than_are_allowed(
    world: World, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: Counter[str] = Counter()

    def counted(ring: Keyring, half: Half, sealed: bytes) -> OpenKey:
        opened[half.row.id] += 1
        return open_half(ring, half, sealed)

    monkeypatch.setattr(client_keys_module, "open_half", counted)
    monkeypatch.setattr(client_keys_module, "KEPT_OPEN", 2)
    async with world.open() as km:
        keys = await client_keys(km)
        first = await keys.generate(ADA, "phone")
        assert [await opens(keys, ADA, first) for _ in range(5)] == [True] * 5
        assert opened == {first.id: 1}
        others = [await keys.generate(ADA, device) for device in ("tablet", "laptop")]
        assert list(keys._open) == [key.id for key in others]
        assert await opens(keys, ADA, first)
        assert opened[first.id] == 2
        # What has expired is not kept.
        await later(km, clock, 30 * DAY + MINUTE * 5)
        with pytest.raises(KeyExpiredError):
            await keys.find(ADA, first.id)
        assert first.id not in keys._open


DEVICES = [
    "\U0001f4b3" * 128,
    "Z\u00fcrich",
    "a'b\";--",
    "%_\\",
    "\u05d0\u05d1 \u0661",
    "\uff21\u200a\u3000x",
    "NULL",
    " x ",
]
NO_DEVICES = [
    "",
    " ",
    "\u3000",
    "a\x00",
    "\x7f",
    "a\nb",
    "\u202eab",
    "\u200b",
    "\ufeffa",
    "\ud800",
    "\ue000",
    "x" * 129,
]


async def test_a_device_is_kept_by_what_it_calls_itself_and_what_is_no_id_leaves_nothing(world: World) -> None:
    async with world.open() as km:
        keys = await client_keys(km)
        made = {device: await keys.generate(ADA, device, app_version=device) for device in DEVICES}
        for device, key in made.items():
            assert (key.device_id, key.app_version) == (device, device)
            assert await keys.find(ADA, key.id) == key
        assert (await keys.generate(ADA, "Zu\u0308rich")).id == made["Z\u00fcrich"].id
        for device in NO_DEVICES:
            for named, version in ((device, None), ("phone", device)):
                with pytest.raises(InvalidInputError):
                    await keys.generate(ADA, named, app_version=version)
        assert {row["device_id"] for row in await rows(world.store, client_devices)} == set(DEVICES)


async def test_a_half_whose_wrap_key_was_taken_out_of_use_is_not_opened_even_if_it_was_before(world: World) -> None:
    async with world.open() as km:
        keys = await client_keys(km)
        first = await keys.generate(ADA, "phone")
        assert await opens(keys, ADA, first)
        await disable_wrap(world, km, first)
        with pytest.raises(KMSError) as caught:
            await opens(keys, ADA, first)
        assert not isinstance(caught.value, DecryptionError)
