"""What every store keeps and refuses of data keys: one suite for SQLite, PostgreSQL and memory."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from keystead.errors import ConflictError, InvalidInputError, KeyNotFoundError, StorageOperationError
from keystead.model import DataKeyState, KeyringPurpose
from keystead.ports import KeyStore
from tests.stores.records import CREATED, data_key, fill


async def test_a_data_key_comes_back_as_it_was_added(store: KeyStore) -> None:
    record = data_key(
        id=2**63 - 1,
        version=2**40,
        wrapped_by=2**62,
        kek_provider="vault",
        kek_key_id="transit/kek",
        kek_version="7",
        kek_algorithm="aes256-gcm96",
        context={"tenant": "ü\u0000\U0001f511", "a": ""},
        published_epoch=9,
        activated_at=CREATED,
        rotate_after=CREATED + timedelta(days=72),
        expires_at=CREATED + timedelta(days=90),
        destroy_after=CREATED + timedelta(days=900, microseconds=1),
        messages=2**40,
        bytes=2**50,
        legacy_version="v1700000000",
    )
    await fill(store, record)
    async with store.reading() as work:
        assert await work.find_key(record.id) == record
        assert await work.find_legacy_key("v1700000000") == record
        assert await work.find_active("default") == record


async def test_times_of_another_zone_come_back_in_utc(store: KeyStore) -> None:
    east = datetime.fromisoformat("2030-01-01T05:00:00+05:00")
    await fill(store, data_key(id=1, expires_at=east))
    async with store.reading() as work:
        found = await work.find_key(1)
    assert found is not None
    assert found.expires_at is not None
    assert (found.expires_at, found.expires_at.tzinfo) == (east, UTC)


async def test_a_time_without_a_zone_is_refused(store: KeyStore) -> None:
    with pytest.raises(InvalidInputError, match="zone"):
        await fill(store, data_key(expires_at=datetime(2030, 1, 1)))  # noqa: DTZ001 -- what is refused


async def test_a_new_key_is_published_with_its_transaction(store: KeyStore) -> None:
    await fill(store, data_key(id=1))
    async with store.reading() as work:
        found, state = await work.find_key(1), await work.state()
    assert found is not None
    assert found.published_epoch == state.epoch


@pytest.mark.parametrize("key_id", [0, -1, 2**63, 2**64])
async def test_an_impossible_id_names_no_key(store: KeyStore, key_id: int) -> None:
    async with store.reading() as work:
        assert await work.find_key(key_id) is None


@pytest.mark.parametrize(
    "taken",
    [
        {"id": 1, "version": 2, "state": DataKeyState.PRE_ACTIVE},
        {"version": 1, "state": DataKeyState.PRE_ACTIVE},
        {"version": 2, "state": DataKeyState.ACTIVE},
        {"version": 2, "state": DataKeyState.DECRYPT_ONLY, "legacy_version": "v1"},
    ],
    ids=["id", "version", "active state", "legacy version"],
)
async def test_what_one_key_has_no_other_gets(store: KeyStore, taken: dict[str, Any]) -> None:
    await fill(store, data_key(id=1, legacy_version="v1"))
    with pytest.raises(ConflictError):
        await fill(store, data_key(**taken))


@pytest.mark.parametrize(
    "broken",
    [
        {"wrapped_key": bytes(32)},
        {"wrapped_key": None},
        {"state": DataKeyState.DESTROYED},
        {"version": 0},
        {"id": 0},
        {"keyring": "nobody's"},
    ],
    ids=["as short as a bare key", "unwrapped", "destroyed with a key", "version 0", "id 0", "no keyring"],
)
async def test_a_row_that_breaks_a_rule_is_refused(store: KeyStore, broken: dict[str, Any]) -> None:
    await fill(store)
    with pytest.raises(StorageOperationError) as caught:
        async with store.transaction() as work:
            await work.add_key(data_key(**broken))
    assert not isinstance(caught.value, ConflictError)


async def test_a_change_gives_the_changed_row(store: KeyStore) -> None:
    record = data_key(id=1)
    await fill(store, record)
    async with store.transaction() as work:
        epoch = await work.bump_epoch()
        changed = await work.change_key(
            1, DataKeyState.ACTIVE, state=DataKeyState.DECRYPT_ONLY, published_epoch=epoch, expires_at=CREATED
        )
        assert await work.find_key(1) == changed
    expected = replace(record, state=DataKeyState.DECRYPT_ONLY, published_epoch=epoch, expires_at=CREATED)
    assert changed == expected


async def test_a_change_of_a_key_in_another_state_conflicts(store: KeyStore) -> None:
    await fill(store, data_key(id=1))
    with pytest.raises(ConflictError, match="is active"):
        async with store.transaction() as work:
            await work.change_key(1, DataKeyState.PRE_ACTIVE, state=DataKeyState.ACTIVE)


async def test_a_change_of_an_unknown_key_says_so(store: KeyStore) -> None:
    with pytest.raises(KeyNotFoundError):
        async with store.transaction() as work:
            await work.change_key(5, DataKeyState.ACTIVE, state=DataKeyState.DECRYPT_ONLY)


@pytest.mark.parametrize(
    "column", ["id", "keyring", "version", "purpose", "algorithm", "created", "context", "messages", "legacy_version"]
)
async def test_an_immutable_column_is_refused(store: KeyStore, column: str) -> None:
    await fill(store, data_key(id=1))
    with pytest.raises(InvalidInputError, match=column):
        async with store.transaction() as work:
            await work.change_key(1, DataKeyState.ACTIVE, **{column: 1})


async def test_destroying_drops_the_wrapped_key_and_keeps_the_row(store: KeyStore) -> None:
    await fill(store, data_key(id=1))
    async with store.transaction() as work:
        await work.change_key(1, DataKeyState.ACTIVE, state=DataKeyState.DESTROYED)
    async with store.reading() as work:
        found = await work.find_key(1)
    assert found is not None
    assert (found.state, found.wrapped_key) == (DataKeyState.DESTROYED, None)


async def test_a_destroyed_key_never_comes_back(store: KeyStore) -> None:
    await fill(store, data_key(id=1, state=DataKeyState.DESTROYED, wrapped_key=None))
    with pytest.raises(InvalidInputError, match="destroyed"):
        async with store.transaction() as work:
            await work.change_key(1, DataKeyState.DESTROYED, state=DataKeyState.ACTIVE, wrapped_key=bytes(60))


@pytest.mark.parametrize(
    "changes", [{}, {"wrapped_key": None}, {"state": DataKeyState.DESTROYED, "wrapped_key": bytes(60)}]
)
async def test_a_change_that_makes_no_sense_is_refused(store: KeyStore, changes: dict[str, Any]) -> None:
    await fill(store, data_key(id=1))
    with pytest.raises(InvalidInputError):
        async with store.transaction() as work:
            await work.change_key(1, DataKeyState.ACTIVE, **changes)


async def test_one_of_64_promoters_wins(store: KeyStore) -> None:
    await fill(store, *(data_key(id=n, version=n, state=DataKeyState.PRE_ACTIVE) for n in range(1, 65)))

    async def promote(key_id: int) -> bool:
        try:
            async with store.transaction() as work:
                await work.change_key(key_id, DataKeyState.PRE_ACTIVE, state=DataKeyState.ACTIVE)
        except ConflictError:
            return False
        return True

    won = await asyncio.gather(*(promote(n) for n in range(1, 65)))
    async with store.reading() as work:
        counts = await work.count_keys("default")
    assert (sum(won), counts) == (1, {DataKeyState.ACTIVE: 1, DataKeyState.PRE_ACTIVE: 63})


async def test_keys_are_filtered_and_paged(store: KeyStore) -> None:
    wrap = {"purpose": KeyringPurpose.WRAP, "wrapped_by": None, "keyring": "keystead.wrap"}
    await fill(
        store,
        data_key(id=1, published_epoch=1, **wrap),
        data_key(id=2, published_epoch=2, wrapped_by=1),
        data_key(
            id=3, published_epoch=3, wrapped_by=9, version=2, state=DataKeyState.DECRYPT_ONLY, rotate_after=CREATED
        ),
        data_key(id=4, published_epoch=4, wrapped_by=9, version=3, state=DataKeyState.DESTROYED, wrapped_key=None),
    )

    async with store.reading() as work:

        async def ids(**filters: Any) -> list[int]:
            return [key.id for key in await work.keys(**filters)]

        assert await ids() == [1, 2, 3, 4]
        assert await ids(limit=2) == [1, 2]
        assert await ids(after_id=2) == [3, 4]
        assert await ids(keyring="default") == [2, 3, 4]
        assert await ids(states=[DataKeyState.ACTIVE]) == [1, 2]
        assert await ids(states=[]) == []
        assert await ids(wrapped_by=9) == [3]
        assert await ids(wrapped_by_not=[1]) == [3]
        assert await ids(wrapped_by_not=[]) == [2, 3]
        assert await ids(published_after=2) == [3, 4]
        assert await ids(due_before=CREATED) == [3]
        assert await ids(due_before=CREATED - timedelta(microseconds=1)) == []


async def test_uses_add_up_without_an_epoch(store: KeyStore) -> None:
    await fill(store, data_key(id=1))
    before = await store.open()

    async def add() -> None:
        async with store.transaction() as work:
            await work.add_uses(1, 3, 1000)

    await asyncio.gather(*(add() for _ in range(16)))
    async with store.reading() as work:
        found = await work.find_key(1)
        assert await work.state() == before
    assert found is not None
    assert (found.messages, found.bytes) == (48, 16_000)


async def test_uses_of_a_key_that_is_gone_are_dropped(store: KeyStore) -> None:
    async with store.transaction() as work:
        await work.add_uses(5, 1, 1)
