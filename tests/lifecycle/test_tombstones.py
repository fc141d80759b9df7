"""That a key was destroyed is known to every process of a store, outside its database."""

from __future__ import annotations

from pathlib import Path

import pytest

from keystead.manager import backup
from keystead.manager.manager import KeyManager
from keystead.model import WRAP_KEYRING, DataKeyState
from tests.fakes.clock import FakeClock
from tests.fakes.world import World, copied, polled, put_back, session_of


async def replaced(km: KeyManager, world: World, keyring: str) -> int:
    """Put another version in the place of a keyring's first one, which nothing needs any more, and return its id."""
    session = await session_of(km)
    await session.lifecycle.rotation.rotate(keyring, promote="now")
    await session.lifecycle.rewrap.data_rows()
    return (await world.rows(keyring))[0].id


async def destroyed(km: KeyManager, clock: FakeClock, key_id: int) -> None:
    destruction = (await session_of(km)).lifecycle.destruction
    await destruction.schedule(key_id, without_sources=True)
    clock.advance(31 * 86400)
    assert [row.id for row in await destruction.run_due()] == [key_id]


async def known(km: KeyManager) -> frozenset[int]:
    session = await session_of(km)
    return session.surroundings.journal.read(session.live.store_id).destroyed


KEYRINGS = pytest.mark.parametrize("keyring", [WRAP_KEYRING, "people"])


@KEYRINGS
async def test_a_process_that_runs_learns_that_a_key_was_destroyed(
    world: World, clock: FakeClock, tmp_path: Path, keyring: str
) -> None:
    async with (
        world.open(state_dir=tmp_path / "one", grace_s=None) as km,
        world.open(state_dir=tmp_path / "other", grace_s=None) as other,
    ):
        await km.keyring("people")
        key_id = await replaced(km, world, keyring)
        await polled(other)
        await destroyed(km, clock, key_id)
        await polled(other)
        assert key_id in await known(other)


@KEYRINGS
async def test_a_process_that_starts_later_learns_that_a_key_was_destroyed(
    world: World, clock: FakeClock, tmp_path: Path, keyring: str
) -> None:
    async with world.open(state_dir=tmp_path / "other"):
        pass
    async with world.open(state_dir=tmp_path / "one", grace_s=None) as km:
        await km.keyring("people")
        await destroyed(km, clock, await replaced(km, world, keyring))
    async with world.open(state_dir=tmp_path / "other") as other:
        assert (await world.rows(keyring))[0].id in await known(other)


async def test_a_wrap_key_that_another_process_destroyed_does_not_come_back_with_a_backup(
    world: World, clock: FakeClock, tmp_path: Path
) -> None:
    async with (
        world.open(state_dir=tmp_path / "one", grace_s=None) as km,
        world.open(state_dir=tmp_path / "other", grace_s=None) as other,
    ):
        key_id = await replaced(km, world, WRAP_KEYRING)
        await polled(other)
        kept = copied(world.store)
        await destroyed(km, clock, key_id)
        await polled(other)
        put_back(world.store, kept)
        await polled(other)
        assert key_id in (await backup.recover(other)).destroyed_again
        assert (await world.rows(WRAP_KEYRING))[0].state is DataKeyState.DESTROYED
