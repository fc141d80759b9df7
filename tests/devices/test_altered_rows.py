"""Rows of key pairs that somebody who can write the database has altered: nothing opens by them, nothing is signed."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import update

from keystead.devices.pairs import Purpose, make_pair, public_pem
from keystead.devices.payloads import Operation
from keystead.errors import KMSError, StorageOperationError
from keystead.ports import PairKind
from keystead.stores.tables import client_encryption_keys
from keystead.stores.unit_of_work import SqlUnitOfWork
from tests.devices.room import ADA, BOB, devices, encrypted
from tests.fakes.clock import FakeClock
from tests.fakes.world import World


async def alter(world: World, key_id: str | None = None, **values: Any) -> None:
    altered = update(client_encryption_keys).values(values)
    if key_id is not None:
        altered = altered.where(client_encryption_keys.c.id == key_id)
    async with world.store.transaction() as work:
        assert isinstance(work, SqlUnitOfWork)
        await work._execute(altered)


async def test_a_pair_that_is_put_down_to_somebody_else_opens_for_nobody(world: World) -> None:
    async with world.open() as km:
        room = await devices(km)
        key = await room.keys.generate(ADA, "phone")
        sent = encrypted(key, "secret", Purpose.DATA)
        assert await room.decrypting.decrypt_data(ADA, sent) == "secret"
        await alter(world, owner="bob")
        # It was open here a moment ago, and on another node never.
        for each in (room, await devices(km)):
            for who in (ADA, BOB):
                with pytest.raises(KMSError):
                    await each.decrypting.decrypt_data(who, sent)
        await alter(world, owner="ada")
        assert await room.decrypting.decrypt_data(ADA, sent) == "secret"


async def test_private_halves_that_change_places_open_in_neither_row(world: World) -> None:
    async with world.open() as km:
        room = await devices(km)
        first, second = await room.keys.generate(ADA, "phone"), await room.keys.generate(ADA, "tablet")
        sent = [encrypted(key, "secret", Purpose.DATA) for key in (first, second)]
        assert [await room.decrypting.decrypt_data(ADA, each) for each in sent] == ["secret"] * 2
        for key, other in ((first, second), (second, first)):
            await alter(world, key.id, wrapped_private_key=other.wrapped_private_key, wrapped_by=other.wrapped_by)
        for each in (room, await devices(km)):
            for one, device in zip(sent, ("phone", "tablet"), strict=True):
                with pytest.raises(StorageOperationError, match="its row was altered"):
                    await each.decrypting.decrypt_data(ADA, one)
                with pytest.raises(StorageOperationError, match="its row was altered"):
                    await each.keys.generate(ADA, device)


async def test_a_pair_whose_end_is_put_off_does_not_open(world: World, clock: FakeClock) -> None:
    async with world.open() as km:
        room = await devices(km)
        key = await room.keys.generate(ADA, "phone")
        assert key.expires_at is not None
        await alter(world, expires_at=key.expires_at + timedelta(days=365))
        with pytest.raises(StorageOperationError, match="its row was altered"):
            await room.decrypting.open(ADA, encrypted(key, "secret"), Operation.VERIFY_PASSCODE)


async def test_a_public_half_that_is_somebody_elses_is_not_handed_out(world: World) -> None:
    async with world.open() as km:
        room = await devices(km)
        key = await room.keys.generate(ADA, "phone")
        assert (await room.keys.generate(ADA, "phone")).public_key == key.public_key
        await alter(world, public_key=public_pem(make_pair(PairKind.X25519).public))
        with pytest.raises(StorageOperationError, match="have the device get another key"):
            await room.keys.generate(ADA, "phone")
        again = await room.keys.rotate(ADA, "phone")
        sent = encrypted(again, "secret", Purpose.DATA)
        assert await room.decrypting.decrypt_data(ADA, sent) == "secret"
