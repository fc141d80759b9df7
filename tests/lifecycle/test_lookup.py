from __future__ import annotations

import asyncio
import secrets
from typing import Any

import pytest

from keystead.crypto.envelope import Header
from keystead.errors import DataKeyNotLoadedError, DecryptionError, KeyStateError
from keystead.lifecycle.lookup import ABSENT_FOR_S, READS_PER_S
from keystead.manager.manager import KeyManager
from keystead.stores.journal import FileJournal
from tests.fakes.clock import FakeClock
from tests.fakes.world import CountingStore, World, session_of


def naming(key_id: int) -> bytes:
    """Return something that has the form of an envelope under ``key_id``."""
    return Header(1, key_id, secrets.token_bytes(16)).to_bytes() + bytes(40)


@pytest.fixture
def counted(world: World) -> CountingStore:
    """The world's store, counting."""
    world.store = store = CountingStore(world.store)
    return store


async def test_a_thousand_cold_decrypts_of_one_unknown_key_are_one_store_read(
    world: World, counted: CountingStore
) -> None:
    async with world.open() as km, world.open() as other:
        await other.rotate_data_key(promote="now")
        sealed = [other.local_encrypt(b"%d" % n) for n in range(1000)]
        before, calls = (counted.reads, counted.writes), world.calls()
        opened = await asyncio.gather(*(km.decrypt_local(blob) for blob in sealed))
        assert opened == [b"%d" % n for n in range(1000)]
        assert (counted.reads - before[0], counted.writes - before[1]) == (1, 0)
        assert world.calls() == calls
        assert [km.local_decrypt(blob) for blob in sealed] == opened


async def refused(km: KeyManager, key_id: int) -> str:
    with pytest.raises(DataKeyNotLoadedError) as refusal:
        await km.decrypt_local(naming(key_id))
    assert refusal.value.data_key_id == key_id
    return str(refusal.value)


async def test_a_flood_of_invented_ids_costs_a_bounded_number_of_reads(
    world: World, counted: CountingStore, clock: FakeClock
) -> None:
    async with world.open() as km:
        before = counted.reads
        told = [await refused(km, key_id) for key_id in range(1, 1001)]
        assert counted.reads - before == READS_PER_S
        assert "too many" in told[-1]
        assert "not in this store" in told[0]
        clock.advance(0.5)
        for key_id in range(2001, 2101):
            await refused(km, key_id)
        assert counted.reads - before == READS_PER_S * 1.5


async def test_an_absent_id_is_asked_for_once_a_second(world: World, counted: CountingStore, clock: FakeClock) -> None:
    async with world.open() as km:
        before = counted.reads
        for _ in range(50):
            assert "not in this store" in await refused(km, 7)
        assert counted.reads - before == 1
        clock.advance(ABSENT_FOR_S)
        await refused(km, 7)
        assert counted.reads - before == 2


async def test_what_is_remembered_of_absent_ids_is_bounded(
    world: World, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("keystead.lifecycle.lookup.ABSENT_MOST", 5)
    async with world.open() as km:
        for key_id in range(1, 20):
            await refused(km, key_id)
        assert len((await session_of(km)).lifecycle.lookup._absent) == 5


async def test_another_keyrings_id_is_no_decryption_and_waiting_does_not_help(world: World) -> None:
    async with world.open() as km, world.open() as other:
        sealed = (await other.keyring("theirs")).local_encrypt(b"x")
        wrap = next(row for row in await world.rows() if row.keyring == "keystead.wrap")
        for blob in (sealed, naming(wrap.id)):
            with pytest.raises(DecryptionError) as refusal:
                await km.decrypt_local(blob)
            assert refusal.type is DecryptionError
            assert not refusal.value.retryable


async def test_a_withheld_version_is_not_looked_up_again(world: World, counted: CountingStore) -> None:
    async with world.open() as km:
        sealed = km.local_encrypt(b"x")
        await km.rotate_data_key()
        await (await session_of(km)).lifecycle.destruction.disable(int.from_bytes(sealed[2:10], "big"))
        before = counted.reads
        for _ in range(3):
            with pytest.raises(KeyStateError, match="disabled"):
                await km.decrypt_local(sealed)
        await (await session_of(km)).lifecycle.lookup.fetch(km.default.ring, int.from_bytes(sealed[2:10], "big"))
        assert counted.reads == before


async def test_a_key_that_is_gone_is_named_as_it_was(world: World, tmp_path: Any) -> None:
    async with world.open(state_dir=tmp_path) as km:
        live = (await session_of(km)).live
        FileJournal(tmp_path).append(live.store_id, keys={77: ("people", 4)})
        assert "keyring 'people' version 4" in await refused(km, 77)


async def test_the_reader_who_leaves_does_not_take_the_answer_along(world: World) -> None:
    async with world.open() as km, world.open() as other:
        await other.rotate_data_key(promote="now")
        sealed = other.local_encrypt(b"x")
        impatient = asyncio.create_task(km.decrypt_local(sealed))
        patient = asyncio.create_task(km.decrypt_local(sealed))
        await asyncio.sleep(0)
        impatient.cancel()
        assert await patient == b"x"
        with pytest.raises(asyncio.CancelledError):
            await impatient


async def test_nothing_waits_in_a_keyring_that_does_not_exist(world: World) -> None:
    async with world.open() as km:
        assert await (await session_of(km)).lifecycle.rotation.promote("nowhere") is None
