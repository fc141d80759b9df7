"""What every store keeps and refuses: one suite for SQLite, PostgreSQL and memory."""

from __future__ import annotations

import asyncio
import re

import pytest

from keystead.errors import ConflictError, InvalidInputError, KeyNotFoundError, StorageOperationError
from keystead.model import DataKeyState, KeyringPurpose
from keystead.ports import KeyStore
from tests.stores.records import data_key, fill, keyring


async def test_a_new_store_has_a_random_id_and_is_not_restored(store: KeyStore) -> None:
    async with store.reading() as work:
        state = await work.state()
    assert re.fullmatch("[0-9a-f]{32}", state.store_id)
    assert not state.restored


async def test_only_a_memory_store_forgets(store: KeyStore, request: pytest.FixtureRequest) -> None:
    assert store.is_durable != (request.node.callspec.params["store"] == "memory")


async def test_opening_again_gives_the_same_store(store: KeyStore) -> None:
    assert await store.open() == await store.open()


async def test_a_closed_store_opens_again(store: KeyStore) -> None:
    before = await store.open()
    await store.aclose()
    await store.aclose()
    assert await store.open() == before


async def test_the_epoch_counts_once_a_transaction(store: KeyStore) -> None:
    before = (await store.open()).epoch
    async with store.transaction() as work:
        await work.add_keyring(keyring())
        await work.add_key(data_key())
        assert await work.bump_epoch() == await work.bump_epoch() == before + 1
    assert (await store.open()).epoch == before + 1


async def test_a_failed_block_leaves_nothing(store: KeyStore) -> None:
    before = await store.open()
    with pytest.raises(ZeroDivisionError):
        async with store.transaction() as work:
            await work.add_keyring(keyring())
            raise ZeroDivisionError
    async with store.reading() as work:
        assert await work.find_keyring("default") is None
        assert await work.state() == before


async def test_a_cancelled_transaction_leaves_nothing_and_the_store_goes_on(store: KeyStore) -> None:
    async def stuck() -> None:
        async with store.transaction() as work:
            await work.add_keyring(keyring())
            await asyncio.sleep(60)

    task = asyncio.create_task(stuck())
    await asyncio.sleep(0.2)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    async with store.transaction() as work:
        assert await work.add_keyring(keyring())


async def test_a_reading_transaction_cannot_write(store: KeyStore) -> None:
    with pytest.raises(StorageOperationError, match="only reads"):
        async with store.reading() as work:
            await work.add_keyring(keyring())


async def test_a_failure_that_the_block_swallows_still_undoes_it(store: KeyStore) -> None:
    await fill(store, data_key(id=1))
    with pytest.raises(ConflictError):
        async with store.transaction() as work:
            await work.add_keyring(keyring("other"))
            with pytest.raises(ConflictError):
                await work.add_key(data_key(id=1, version=2, state=DataKeyState.PRE_ACTIVE))
    async with store.reading() as work:
        assert await work.find_keyring("other") is None


async def test_after_a_failed_statement_the_transaction_can_only_be_left(store: KeyStore) -> None:
    await fill(store, data_key(id=1))
    with pytest.raises(ConflictError):
        async with store.transaction() as work:
            with pytest.raises(ConflictError):
                await work.add_key(data_key(id=1))
            await work.state()


async def test_raising_the_epoch_never_lowers_it(store: KeyStore) -> None:
    async with store.transaction() as work:
        assert await work.raise_epoch(500) == 500
    async with store.transaction() as work:
        assert await work.raise_epoch(7) == 501


async def test_the_restored_mark_is_kept(store: KeyStore) -> None:
    async with store.transaction() as work:
        await work.set_restored(True)
    assert (await store.open()).restored


async def test_an_empty_store_adopts_the_identity_of_an_exported_one(store: KeyStore) -> None:
    async with store.transaction() as work:
        await work.adopt("ab" * 16, 40)
        await work.add_keyring(keyring())
    state = await store.open()
    assert (state.store_id, state.epoch, state.restored) == ("ab" * 16, 40, True)


@pytest.mark.parametrize("store_id", ["", "AB" * 16, "zz" * 16, "ab" * 17])
async def test_a_malformed_store_id_is_not_adopted(store: KeyStore, store_id: str) -> None:
    with pytest.raises(InvalidInputError):
        async with store.transaction() as work:
            await work.adopt(store_id, 40)


async def test_versions_are_never_taken_back(store: KeyStore) -> None:
    await fill(store)
    with pytest.raises(InvalidInputError):
        async with store.transaction() as work:
            await work.take_version("default", skip=-1)


async def test_a_store_with_keyrings_keeps_its_identity(store: KeyStore) -> None:
    await fill(store)
    with pytest.raises(ConflictError, match="empty"):
        async with store.transaction() as work:
            await work.adopt("ab" * 16, 40)


async def test_a_keyring_comes_back_as_it_was_added(store: KeyStore) -> None:
    record = keyring("tenant-ü", purpose=KeyringPurpose.INDEX, next_version=4)
    async with store.transaction() as work:
        assert await work.add_keyring(record)
        assert await work.find_keyring("tenant-ü", lock=True) == record


async def test_a_keyring_is_added_once(store: KeyStore) -> None:
    async with store.transaction() as work:
        assert await work.add_keyring(keyring())
    async with store.transaction() as work:
        assert not await work.add_keyring(keyring(algorithm="AES-128-GCM"))
        found = await work.find_keyring("default")
    assert found == keyring()


async def test_keyrings_are_listed_in_pages_by_name(store: KeyStore) -> None:
    async with store.transaction() as work:
        for name in ("c", "a", "b"):
            await work.add_keyring(keyring(name))
        first = await work.keyrings(limit=2)
        rest = await work.keyrings(after=first[-1].name)
    assert [record.name for record in first + rest] == ["a", "b", "c"]


async def test_versions_are_never_given_twice_to_64_tasks(store: KeyStore) -> None:
    await fill(store)

    async def take() -> int:
        async with store.transaction() as work:
            return await work.take_version("default")

    taken = await asyncio.gather(*(take() for _ in range(64)))
    assert sorted(taken) == list(range(1, 65))


async def test_skipped_versions_are_never_given(store: KeyStore) -> None:
    await fill(store)
    async with store.transaction() as work:
        taken = [await work.take_version("default", skip=skip) for skip in (0, 1000, 0)]
    assert taken == [1, 1002, 1003]


async def test_an_unknown_keyring_has_no_versions(store: KeyStore) -> None:
    with pytest.raises(KeyNotFoundError):
        async with store.transaction() as work:
            await work.take_version("nobody's")


@pytest.mark.parametrize("store", ["sqlite", "postgresql"], indirect=True)
async def test_a_reading_transaction_sees_one_moment(store: KeyStore) -> None:
    async with store.reading() as work:
        before = await work.state()
        await fill(store, data_key(id=1))
        assert await work.state() == before
        assert await work.find_key(1) is None
