"""Versions made of keys that are given, and versions that get another key in them."""

from __future__ import annotations

import pytest

from keystead.errors import StoreRestoredError
from keystead.lifecycle.creation import NewKey
from keystead.model import DataKeyState
from keystead.ports import UnitOfWork
from tests.fakes.world import World, session_of


async def test_a_version_that_is_gone_by_now_is_not_loaded_again(world: World) -> None:
    async with world.open() as km:
        first = (await km.default.versions())[0]
        await km.rotate_data_key()
        live, ring = (await session_of(km)).live, km.default.ring
        before = ring.snapshot
        async with world.store.transaction() as work:
            row = await work.find_key(first.id)
            assert row is not None
            await work.change_key(row.id, row.state, state=DataKeyState.DISABLED)
        for key_id in (row.id, row.id + 1):
            await live.load_again(ring, key_id)
        assert ring.snapshot is before


async def test_a_given_key_becomes_no_version_of_a_store_that_was_put_back(world: World) -> None:
    async with world.open() as km:
        rotation = (await session_of(km)).lifecycle.rotation
        async with world.store.transaction() as work:
            await work.set_restored(True)
        with pytest.raises(StoreRestoredError):
            await rotation.add("default", NewKey(bytes(32)), _nobody_is_asked)
    assert [row.state for row in await world.rows("default")] == [DataKeyState.ACTIVE]


async def _nobody_is_asked(work: UnitOfWork) -> None:
    raise AssertionError("the guard was asked before the store was looked at")
