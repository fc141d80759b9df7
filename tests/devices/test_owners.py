"""Devices are revoked, released and forgotten: what goes then, and who may."""

from __future__ import annotations

import pytest

from keystead.devices.owners import Forgotten
from keystead.devices.payloads import Operation
from keystead.errors import ForbiddenError, KeyExpiredError, KeyNotFoundError, ReplayedError
from keystead.model import Principal
from keystead.ports import SecretKind
from tests.devices.room import ADA, BOB, devices, encrypted
from tests.fakes.world import World

VERIFY, CODE = Operation.VERIFY_PASSCODE, SecretKind.PASSCODE


async def test_what_was_encrypted_to_a_device_does_not_open_once_it_is_revoked_on_any_node(world: World) -> None:
    async with world.open() as km, world.open() as other:
        room, elsewhere = await devices(km), await devices(other)
        first = await room.keys.generate(ADA, "phone")
        world.clock.advance(1)
        second = await room.keys.rotate(ADA, "phone")
        sent = encrypted(first, "secret")
        assert (await elsewhere.decrypting.open(ADA, sent, VERIFY)).secret == "secret"
        await room.owners.revoke(ADA, "phone")
        for node in (room, elsewhere):
            for key in (first, second):
                with pytest.raises(KeyExpiredError):
                    await node.decrypting.open(ADA, encrypted(key, "secret"), VERIFY)
            with pytest.raises(ForbiddenError, match="revoked"):
                await node.keys.generate(ADA, "phone")
        keys = await room.owners.client_keys(ADA, "phone")
        assert [(key.id, key.wrapped_private_key) for key in keys] == [(second.id, None), (first.id, None)]


async def test_a_device_is_revoked_by_its_owner_or_an_administrator(world: World) -> None:
    async with world.open() as km:
        room = await devices(km)
        first = await room.keys.generate(ADA, "phone")
        for who in (BOB, Principal("ada", "north")):
            with pytest.raises((ForbiddenError, KeyNotFoundError)):
                await room.owners.revoke(who, "phone")
            with pytest.raises((ForbiddenError, KeyNotFoundError)):
                await room.owners.client_keys(who, "phone")
        with pytest.raises(KeyNotFoundError, match="no device"):
            await room.owners.revoke(ADA, "tablet")
        assert (await room.keys.generate(ADA, "phone")).id == first.id
        await room.owners.revoke(BOB, "phone", is_admin=True)
        (device,) = await room.owners.devices(ADA)
        assert (device.device_id, device.owner, device.revoked_at) == ("phone", "ada", world.clock.now())


async def test_a_device_that_is_released_serves_another_who_opens_nothing_of_the_one_before(world: World) -> None:
    async with world.open() as km:
        room = await devices(km)
        first = await room.keys.generate(ADA, "phone")
        await room.owners.revoke(ADA, "phone")
        await room.owners.release(BOB, "phone")
        second = await room.keys.generate(BOB, "phone")
        assert (await room.decrypting.open(BOB, encrypted(second, "mine"), VERIFY)).secret == "mine"
        for who in (ADA, BOB):
            with pytest.raises((KeyExpiredError, KeyNotFoundError)):
                await room.decrypting.open(who, encrypted(first, "secret"), VERIFY)
        with pytest.raises(KeyNotFoundError):
            await room.owners.release(BOB, "tablet")


async def test_a_user_who_is_forgotten_leaves_nothing_but_the_trail(world: World) -> None:
    async with world.open() as km:
        room = await devices(km)
        mine, other = await room.keys.generate(ADA, "phone"), await room.keys.generate(BOB, "laptop")
        await room.keys.generate(ADA, "tablet")
        await room.secrets.set(ADA, CODE, encrypted(mine, "correct horse"))
        kept = encrypted(other, "correct horse")
        await room.secrets.set(BOB, CODE, kept)
        assert await room.owners.forget(BOB, "ada") == Forgotten(devices=2, client_keys=2, secrets=1)
        assert await room.owners.forget(BOB, "ada") == Forgotten(devices=0, client_keys=0, secrets=0)
        async with world.store.reading() as work:
            assert await work.find_device("", "phone") is None
            assert await work.find_client_key(mine.id) is None
            assert await work.find_credential("", "ada", CODE) is None
        assert (await room.owners.devices(ADA), len(await room.owners.devices(BOB))) == ([], 1)
        with pytest.raises(ReplayedError):
            await room.decrypting.open(BOB, kept, VERIFY)
        assert (await room.keys.generate(BOB, "phone")).owner == "bob"
