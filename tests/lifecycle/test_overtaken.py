"""What was read, or decided, is over by the time it is used: another process, or a time limit, was faster."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from keystead.errors import InvalidInputError, KeyRotationError, StoreRestoredError, StoreUnavailableError
from keystead.lifecycle import live_keyrings, noticing
from keystead.manager import backup
from keystead.manager.manager import KeyManager
from keystead.model import WRAP_KEYRING, DataKeyState, StoreState
from tests.fakes.clock import FakeClock
from tests.fakes.world import World, copied, polled, put_back, session_of

Meanwhile = Callable[[], Awaitable[object]]


def before_it_marks(monkeypatch: pytest.MonkeyPatch, meanwhile: Meanwhile) -> None:
    """Have something happen once, between the reading of a store that went back and its mark."""
    mark = noticing.mark_restored

    async def late(*given: Any) -> tuple[StoreState, bool]:
        monkeypatch.setattr(live_keyrings, "mark_restored", mark)
        await meanwhile()
        return await mark(*given)

    monkeypatch.setattr(live_keyrings, "mark_restored", late)


async def went_back(world: World, *managers: KeyManager) -> None:
    """Put the store back to before a rotation that the managers have seen."""
    await polled(*managers)
    kept = copied(world.store)
    for _ in range(3):
        await managers[-1].rotate_data_key(promote="now")
    await polled(*managers)
    put_back(world.store, kept)


async def test_a_store_that_was_recovered_meanwhile_is_not_marked_again(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with world.open() as late, world.open() as km:
        await went_back(world, late, km)

        async def recovered() -> None:
            await (await session_of(km)).live.refresh()
            await backup.recover(km)

        before_it_marks(monkeypatch, recovered)
        await (await session_of(late)).live.refresh()
        await polled(late, km)
        assert late.local_decrypt(km.local_encrypt(b"value")) == b"value"


async def test_a_store_that_is_recovered_while_a_process_starts_is_not_marked_again(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with world.open(state_dir=tmp_path) as km:
        await went_back(world, km)

    async def recovered() -> None:
        async with world.open(state_dir=tmp_path) as other:
            await backup.recover(other)

    before_it_marks(monkeypatch, recovered)
    async with world.open(state_dir=tmp_path) as km:
        assert km.local_decrypt(km.local_encrypt(b"value")) == b"value"


async def test_what_changes_while_a_store_is_marked_is_read_by_the_next_poll(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    sealed: list[bytes] = []
    async with world.open() as late, world.open() as km:
        await went_back(world, late, km)

        async def rotated() -> None:
            # By a process that knows of nothing later.
            async with world.open() as fresh:
                await fresh.rotate_data_key(promote="now")
                sealed.append(fresh.local_encrypt(b"value"))

        before_it_marks(monkeypatch, rotated)
        await polled(late)
        await polled(late)
        assert late.local_decrypt(sealed[0]) == b"value"


async def test_no_version_is_added_to_a_store_that_was_marked_while_it_was_wrapped(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with world.open() as km:
        rotation = (await session_of(km)).lifecycle.rotation
        wrapped = rotation._wrapped

        async def slow(*given: Any) -> Any:
            row = await wrapped(*given)
            async with world.store.transaction() as work:
                await work.set_restored(True)
            return row

        monkeypatch.setattr(rotation, "_wrapped", slow)
        with pytest.raises((StoreRestoredError, KeyRotationError)):
            await rotation.rotate("default", promote="now")
    assert len(await world.rows("default")) == 1


async def test_a_recovery_that_another_one_overtakes_makes_no_version_in_the_recovered_store(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with world.open() as late, world.open() as km, world.open() as node:
        await went_back(world, node, late, km)
        await polled(late, km, node)
        rotation = (await session_of(late)).lifecycle.rotation
        wrapped = rotation._wrapped

        async def overtaken(*given: Any) -> Any:
            monkeypatch.setattr(rotation, "_wrapped", wrapped)
            row = await wrapped(*given)
            await backup.recover(km)
            await polled(node)
            return row

        monkeypatch.setattr(rotation, "_wrapped", overtaken)
        with pytest.raises(InvalidInputError, match="recovered meanwhile"):
            await backup.recover(late)
        await polled(late)
        assert node.local_decrypt(late.local_encrypt(b"value")) == b"value"


async def test_a_wrap_key_that_moved_to_another_kek_while_the_kms_was_asked_is_not_put_back(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with world.open() as km, world.open(default_key_id="new") as operator:
        session, other = await session_of(km), await session_of(operator)
        live = session.live
        ring = await live.wrap_ring(WRAP_KEYRING)
        async with world.open() as third:
            await (await session_of(third)).lifecycle.rotation.rotate(WRAP_KEYRING, promote="now")
        unwrapped = live._unwrapped_by_kms

        async def slow(row: Any) -> bytes:
            monkeypatch.setattr(live, "_unwrapped_by_kms", unwrapped)
            key = await unwrapped(row)
            await other.lifecycle.rewrap.wrap_rows()
            await live.refresh()
            return key

        monkeypatch.setattr(live, "_unwrapped_by_kms", slow)
        await live.sealing_ring(WRAP_KEYRING)
        assert ring.snapshot.active is not None
        held, kept = live.wrap_row(ring.snapshot.active), (await world.rows(WRAP_KEYRING))[-1]
        assert held is not None
        assert (held.kek_key_id, held.published_epoch) == (kept.kek_key_id, kept.published_epoch)


async def test_a_keyring_whose_loading_was_ended_in_its_midst_is_loaded_by_the_next_caller(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with world.open() as km:
        sealed = (await km.keyring("people")).local_encrypt(b"value")
    async with world.open() as km:
        live = (await session_of(km)).live
        take, begun = live._take, asyncio.Event()

        async def stuck(*given: Any, **how: Any) -> None:
            monkeypatch.setattr(live, "_take", take)
            begun.set()
            await asyncio.Event().wait()

        monkeypatch.setattr(live, "_take", stuck)
        first = asyncio.create_task(km.keyring("people", create=False))
        await begun.wait()
        second = asyncio.create_task(km.keyring("people", create=False))
        await asyncio.sleep(0)
        first.cancel()
        assert (await second).local_decrypt(sealed) == b"value"
        with pytest.raises(asyncio.CancelledError):
            await first


async def test_a_destroyed_wrap_key_is_known_outside_the_database_whatever_fails_next(
    world: World, clock: FakeClock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with world.open(state_dir=tmp_path) as km:
        session = await session_of(km)
        await session.lifecycle.rotation.rotate(WRAP_KEYRING, promote="now")
        await session.lifecycle.rewrap.data_rows()
        wrap = (await world.rows(WRAP_KEYRING))[0]
        due = await session.lifecycle.destruction.schedule(wrap.id, without_sources=True)
        assert due.destroy_after is not None
        clock.advance((due.destroy_after - clock.now()).total_seconds() + 1)

        async def away() -> bool:
            raise StoreUnavailableError("the database restarts")

        monkeypatch.setattr(session.live, "refresh", away)
        with suppress(StoreUnavailableError):
            await session.lifecycle.destruction.run_due()
        monkeypatch.undo()
        assert (await world.rows(WRAP_KEYRING))[0].state is DataKeyState.DESTROYED
        assert wrap.id in session.surroundings.journal.read(session.live.store_id).destroyed


async def test_a_keyring_in_use_stays_in_use_where_giving_it_a_version_was_ended_in_its_midst(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with world.open() as km:
        live = (await session_of(km)).live
        held = await km.keyring("people")
        async with world.store.transaction() as work:
            (row,) = await work.keys(keyring="people")
            epoch = await work.bump_epoch()
            await work.change_key(row.id, row.state, state=DataKeyState.DECRYPT_ONLY, published_epoch=epoch)
        await live.refresh()
        take = live._take

        async def away(*given: Any, **how: Any) -> None:
            monkeypatch.setattr(live, "_take", take)
            raise StoreUnavailableError("the state folder is away")

        monkeypatch.setattr(live, "_take", away)
        with pytest.raises(StoreUnavailableError):
            await km.keyring("people")
        assert live.find("people") is held.ring
        assert held.local_decrypt((await km.keyring("people")).local_encrypt(b"value")) == b"value"
