"""A rewrap that is interrupted, meets a row it cannot move, or is outrun by another process."""

from __future__ import annotations

import pytest

from keystead.errors import ConflictError, KeyDecryptionFailError, KeyNotFoundError
from keystead.model import WRAP_KEYRING, KeyRecord
from tests.fakes.world import World, polled, session_of
from tests.lifecycle.rewrapping import filled, readable, rewrap_of, wrapped_by


@pytest.mark.parametrize("at", range(1, 8))
async def test_an_interrupted_rewrap_is_resumed(world: World, monkeypatch: pytest.MonkeyPatch, at: int) -> None:
    async with world.open() as km:
        sealed = await filled(world, km)
        rewrap = await rewrap_of(km)
        write, writes = rewrap._write, 0

        async def killed(row: KeyRecord, sealed: KeyRecord) -> bool:
            nonlocal writes
            writes += 1
            if writes == at:
                raise KeyboardInterrupt
            return await write(row, sealed)

        monkeypatch.setattr(rewrap, "_write", killed)
        with pytest.raises(KeyboardInterrupt):
            await rewrap.run()
        assert await readable(km, sealed)
    async with world.open() as km:
        assert await readable(km, sealed)
        report = await (await rewrap_of(km)).run(new_wrap_version=False)
        assert report.data_keys == 8 - at
        assert len(await wrapped_by(world)) == 1
        assert await readable(km, sealed)


async def test_one_row_that_cannot_be_moved_does_not_keep_the_others(world: World) -> None:
    async with world.open() as km:
        await filled(world, km)
        rows = await world.rows("a")
        async with world.store.transaction() as work:
            broken = bytes(len(rows[0].wrapped_key or b""))
            await work.change_key(rows[0].id, rows[0].state, wrapped_key=broken)
        with pytest.raises(KeyDecryptionFailError, match=str(rows[0].id)):
            await (await rewrap_of(km)).run()
        _, new = await world.rows(WRAP_KEYRING)
        moved = [row for row in await world.rows() if row.wrapped_by == new.id]
        assert len(moved) == 6


async def test_a_wrap_row_that_the_kms_does_not_open_does_not_keep_the_others(world: World) -> None:
    async with world.open() as km:
        session = await session_of(km)
        await session.lifecycle.rotation.rotate(WRAP_KEYRING)
        await world.kms.rotate_key("billing")
        world.kms.fail_next(1, KeyNotFoundError("gone"), operation="rewrap")
        with pytest.raises(KeyNotFoundError):
            await session.lifecycle.rewrap.wrap_rows()
        assert sorted(row.kek_version or "" for row in await world.rows(WRAP_KEYRING)) == ["1", "2"]
        assert await session.lifecycle.rewrap.wrap_rows() == (1, 0)


async def test_a_row_that_changed_meanwhile_is_left_to_who_changed_it(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with world.open() as km, world.open() as other:
        sealed = await filled(world, km)
        await polled(other)
        session = await session_of(km)
        await session.lifecycle.rotation.rotate(WRAP_KEYRING, promote="now")
        rewrap, theirs = session.lifecycle.rewrap, await rewrap_of(other)
        write = rewrap._write

        async def slow(row: KeyRecord, sealed: KeyRecord) -> bool:
            monkeypatch.setattr(rewrap, "_write", write)
            await theirs.data_rows()
            return await write(row, sealed)

        monkeypatch.setattr(rewrap, "_write", slow)
        moved, skipped = await rewrap.data_rows()
        assert (moved, skipped > 0) == (0, True)
        await world.kms.rotate_key("billing")
        monkeypatch.setattr(rewrap, "_write", lose)
        assert await rewrap.wrap_rows() == (0, 2)
        assert await readable(km, sealed)


async def lose(row: KeyRecord, sealed: KeyRecord) -> bool:
    return False


async def test_a_row_whose_state_changed_within_the_write_is_skipped(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with world.open() as km:
        await filled(world, km)
        rewrap = await rewrap_of(km)

        async def conflict(*arguments: object, **changes: object) -> None:
            raise ConflictError("another process was faster")

        [row, _] = await world.rows("a")
        with monkeypatch.context() as patch:
            patch.setattr("keystead.stores.keys.KeyWriteRows.change_key", conflict)
            assert await rewrap._write(row, row) is False
