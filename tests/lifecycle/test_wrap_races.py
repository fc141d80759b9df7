"""A WRAP version goes out of use, or a row is changed, between the wrapping of a key and the commit that keeps it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import psycopg
import pytest

from keystead.errors import KeyInUseError, KeyStateError, StoreRestoredError
from keystead.manager import admin
from keystead.model import WRAP_KEYRING, DataKeyState
from keystead.stores.schema import migrate
from keystead.stores.sql import SqlKeyStore
from tests.fakes.world import World, polled, session_of
from tests.lifecycle.index_keys import prepare


async def wrap_key_taken_out_of_use(world: World) -> None:
    """Have another process put another WRAP version in the active one's place, and disable that."""
    async with world.open() as other:
        session = await session_of(other)
        await session.lifecycle.rotation.rotate(WRAP_KEYRING, promote="now")
        await session.lifecycle.rewrap.data_rows()
        await session.lifecycle.destruction.disable((await world.rows(WRAP_KEYRING))[-2].id)


def after(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, meanwhile: Callable[[], Awaitable[object]]) -> None:
    """Have something happen once, when ``owner.name`` has answered."""
    real = getattr(owner, name)

    async def slow(*given: Any, **how: Any) -> Any:
        monkeypatch.setattr(owner, name, real)
        answer = await real(*given, **how)
        await meanwhile()
        return answer

    monkeypatch.setattr(owner, name, slow)


async def readable_anew(world: World, sealed: bytes, name: str) -> bool:
    async with world.open() as km:
        return await (await km.keyring(name, create=False)).decrypt_local(sealed) == b"x"


async def test_a_keyring_is_not_made_under_a_wrap_key_that_was_disabled_meanwhile(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with world.open() as km:
        live = (await session_of(km)).live
        after(monkeypatch, live, "sealing_ring", lambda: wrap_key_taken_out_of_use(world))
        sealed = (await km.keyring("people")).local_encrypt(b"x")
    assert await readable_anew(world, sealed, "people")


async def test_a_version_is_not_added_under_a_wrap_key_that_was_disabled_meanwhile(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with world.open() as km:
        rotation = (await session_of(km)).lifecycle.rotation
        after(monkeypatch, rotation, "_wrapped", lambda: wrap_key_taken_out_of_use(world))
        await km.rotate_data_key(promote="now")
        sealed = km.local_encrypt(b"x")
    assert await readable_anew(world, sealed, "default")


async def test_an_index_key_is_not_added_under_a_wrap_key_that_was_disabled_meanwhile(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with world.open() as km:
        rotation = await prepare(km)
        live = (await session_of(km)).live
        after(monkeypatch, live, "sealing_ring", lambda: wrap_key_taken_out_of_use(world))
        added = await rotation.begin("index")
    usable = {row.id for row in await world.rows(WRAP_KEYRING) if row.state.can_decrypt}
    assert added.wrapped_by in usable


async def test_a_key_is_not_moved_to_a_wrap_key_that_was_disabled_meanwhile(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with world.open() as km:
        session = await session_of(km)
        sealed = km.local_encrypt(b"x")
        await session.lifecycle.rotation.rotate(WRAP_KEYRING, promote="now")
        first = (await world.rows("default"))[0]
        old = (await world.rows(WRAP_KEYRING))[-1]

        async def disabled() -> None:
            async with world.open() as other:
                theirs = (await session_of(other)).lifecycle
                await theirs.rotation.rotate(WRAP_KEYRING, promote="now")
                await theirs.destruction.disable(old.id)

        after(monkeypatch, session.live, "ensure_wrap_key", disabled)
        assert (await session.lifecycle.rewrap.data_rows())[0] == 0
        assert (await world.rows("default"))[0].wrapped_by == first.wrapped_by
    assert await readable_anew(world, sealed, "default")


@pytest.fixture
async def postgres(world: World, postgres_url: str) -> AsyncIterator[World]:
    """The same KMS and clock over PostgreSQL, where transactions write side by side."""
    migrate(postgres_url)
    world.store = SqlKeyStore(postgres_url)
    yield world
    await world.store.aclose()


async def until_it_waits(url: str, task: asyncio.Task[Any]) -> None:
    """Return when the database holds a transaction of ``task`` back, or that has ended."""
    held_back = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
        for _ in range(3000):
            if task.done() or (await (await connection.execute(held_back)).fetchone()) != (0,):
                return
            await asyncio.sleep(0.01)


async def test_a_wrap_key_is_not_disabled_while_a_key_that_it_wraps_is_being_committed(
    postgres: World, postgres_url: str
) -> None:
    async with postgres.open() as km:
        session = await session_of(km)
        await session.lifecycle.rotation.rotate(WRAP_KEYRING, promote="now")
        await session.lifecycle.rewrap.data_rows()
        [old, _] = await postgres.rows(WRAP_KEYRING)
        [row] = await postgres.rows("default")
        async with postgres.store.transaction() as work:
            await work.add_key(replace(row, id=7, version=2, state=DataKeyState.DECRYPT_ONLY, wrapped_by=old.id))
            disabling = asyncio.create_task(session.lifecycle.destruction.disable(old.id))
            await until_it_waits(postgres_url, disabling)
        with pytest.raises(KeyInUseError):
            await disabling


async def test_of_two_rewraps_at_once_the_later_one_leaves_the_row_as_the_first_one_made_it(
    postgres: World, postgres_url: str
) -> None:
    async with postgres.open() as km:
        rewrap = (await session_of(km)).lifecycle.rewrap
        [row] = await postgres.rows("default")
        size = len(row.wrapped_key or b"")
        async with postgres.store.transaction() as work:
            epoch = await work.bump_epoch()
            theirs = await work.change_key(row.id, row.state, wrapped_key=bytes(size), published_epoch=epoch)
            moving = asyncio.create_task(rewrap._write(row, replace(row, wrapped_key=b"x" * size)))
            await until_it_waits(postgres_url, moving)
        assert await moving is False
        assert (await postgres.rows("default"))[0] == theirs


async def test_a_destruction_that_is_being_put_off_is_not_carried_out(postgres: World, postgres_url: str) -> None:
    async with postgres.open() as km:
        destruction = (await session_of(km)).lifecycle.destruction
        await km.rotate_data_key(promote="now")
        key = (await postgres.rows("default"))[0]
        pending = await destruction.schedule(key.id, without_sources=True)
        async with postgres.store.transaction() as work:
            epoch = await work.bump_epoch()
            later = pending.created_at + timedelta(days=60)
            await work.change_key(key.id, pending.state, destroy_after=later, published_epoch=epoch)
            destroying = asyncio.create_task(destruction.destroy_now(pending))
            await until_it_waits(postgres_url, destroying)
        with pytest.raises(KeyStateError, match="changed meanwhile"):
            await destroying
        assert (await postgres.rows("default"))[0].wrapped_key is not None


async def test_no_source_is_declared_while_a_destruction_that_has_looked_at_them_is_being_committed(
    postgres: World, postgres_url: str
) -> None:
    async with postgres.open() as km:
        async with postgres.store.transaction() as work:
            await work.bump_epoch()
            assert await work.key_uses("default") == []
            declaring = asyncio.create_task(admin.declare_use(km, "default", "people", "app:people"))
            await until_it_waits(postgres_url, declaring)
            assert not declaring.done()
        await declaring


async def test_no_keyring_is_made_in_a_store_that_is_being_marked_as_restored(
    postgres: World, postgres_url: str
) -> None:
    async with postgres.open() as km:
        async with postgres.store.transaction() as work:
            await work.set_restored(True)
            making = asyncio.create_task(km.keyring("people"))
            await until_it_waits(postgres_url, making)
        with pytest.raises(StoreRestoredError):
            await making
        assert await postgres.rows("people") == []


async def test_no_version_is_promoted_in_a_store_that_is_being_marked_as_restored(
    postgres: World, postgres_url: str
) -> None:
    async with postgres.open() as km, postgres.open() as other:
        await polled(km, other)
        waiting = await km.rotate_data_key()
        assert waiting.state is DataKeyState.PRE_ACTIVE
        async with postgres.store.transaction() as work:
            await work.set_restored(True)
            promoting = asyncio.create_task((await session_of(km)).lifecycle.rotation.promote("default", force=True))
            await until_it_waits(postgres_url, promoting)
        with pytest.raises(StoreRestoredError):
            await promoting
        assert (await postgres.rows("default"))[-1].state is DataKeyState.PRE_ACTIVE


async def test_two_that_want_a_wrap_keyring_at_once_have_the_same(world: World) -> None:
    async with world.open() as km:
        live = (await session_of(km)).live
        first, second = await asyncio.gather(live.wrap_ring("tenant-wrap"), live.wrap_ring("tenant-wrap"))
        assert first is second
        assert first.snapshot.active is not None
