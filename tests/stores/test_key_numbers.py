"""Numbers of keyrings and data keys are those of the rows, and are told from an index."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from keystead.model import DataKeyState, KeyringPurpose
from keystead.ports import KeyStore
from tests.stores.records import CREATED, data_key, fill

DAY = timedelta(days=1)


async def test_keys_are_counted_by_state_and_keyrings_in_all(store: KeyStore) -> None:
    states = (DataKeyState.ACTIVE, DataKeyState.DECRYPT_ONLY, DataKeyState.DECRYPT_ONLY)
    await fill(store, *(data_key(keyring="orders", version=at, state=state) for at, state in enumerate(states, 1)))
    async with store.reading() as work:
        assert await work.count_states() == {DataKeyState.ACTIVE: 1, DataKeyState.DECRYPT_ONLY: 2}
        assert await work.count_keyrings() == 2
        counted = {DataKeyState.ACTIVE: 1, DataKeyState.DECRYPT_ONLY: 1}
        assert (await work.count_states(at_most=1), await work.count_keyrings(at_most=1)) == (counted, 1)
        assert await work.count_states(at_most=10) == await work.count_states()
        assert await work.count_keyrings(at_most=10) == 2


async def test_the_next_rotation_is_that_of_an_active_key(store: KeyStore) -> None:
    async with store.reading() as work:
        assert await work.next_rotation() is None
    await fill(
        store,
        data_key(version=1, state=DataKeyState.DECRYPT_ONLY, rotate_after=CREATED),
        data_key(version=2, rotate_after=CREATED + 2 * DAY),
        data_key(keyring="orders", rotate_after=CREATED + DAY),
        data_key(keyring="forever"),
    )
    async with store.reading() as work:
        assert await work.next_rotation() == CREATED + DAY


async def test_wrap_keys_are_those_that_a_kek_wraps(store: KeyStore) -> None:
    of_kek = {"keyring": "wrap", "purpose": KeyringPurpose.WRAP, "wrapped_by": None, "kek_provider": "cloud"}
    await fill(
        store,
        data_key(id=1, version=1, state=DataKeyState.DECRYPT_ONLY, **of_kek),
        data_key(id=2, version=2, **of_kek),
        data_key(id=3, version=3, state=DataKeyState.DESTROYED, **{**of_kek, "wrapped_key": None}),
        data_key(id=4),
    )
    async with store.reading() as work:
        assert [row.id for row in await work.wrap_keys()] == [1, 2]


async def test_active_keys_are_counted_by_when_they_are_due(store: KeyStore) -> None:
    due = [-DAY, timedelta(0), DAY, 2 * DAY, 9 * DAY]
    await fill(
        store,
        *(data_key(keyring=f"k{at}", rotate_after=CREATED + each) for at, each in enumerate(due)),
        data_key(keyring="forever"),
        data_key(keyring="k0", version=2, state=DataKeyState.DECRYPT_ONLY, rotate_after=CREATED),
    )
    until = [CREATED, CREATED + DAY, CREATED + 7 * DAY]
    async with store.reading() as work:
        assert await work.rotation_counts(until, limit=100) == [2, 1, 1, 1, 1]
        assert await work.rotation_counts(until, limit=3) == [2, 1, 0, 0, 1]


async def test_active_keys_that_have_seen_much_are_found(store: KeyStore) -> None:
    await fill(
        store,
        data_key(id=1, keyring="a", messages=80, rotate_after=CREATED + DAY),
        data_key(id=2, keyring="b", bytes=900, rotate_after=CREATED),
        data_key(id=3, keyring="c", messages=79, bytes=899),
        data_key(id=4, keyring="a", version=2, state=DataKeyState.DECRYPT_ONLY, messages=99),
    )
    async with store.reading() as work:
        assert [row.id for row in await work.used_keys(80.0, 900.0, among=10, limit=10)] == [2, 1]
        assert [row.id for row in await work.used_keys(80.0, None, among=10, limit=10)] == [1]
        assert [row.id for row in await work.used_keys(80.0, 900.0, among=10, limit=1)] == [2]
        assert await work.used_keys(None, None, among=10, limit=10) == []
        assert await work.used_keys(80.0, 900.0, among=0, limit=10) == []


async def test_versions_are_told_a_page_at_a_time_by_their_number_whatever_their_ids(store: KeyStore) -> None:
    states = (DataKeyState.DISABLED, DataKeyState.DECRYPT_ONLY, DataKeyState.DISABLED, DataKeyState.ACTIVE)
    of_orders = [data_key(id=100 - at, keyring="orders", version=at, state=each) for at, each in enumerate(states, 1)]
    await fill(store, data_key(id=7, version=3), *of_orders)

    async def versions(**asked: Any) -> list[int]:
        async with store.reading() as work:
            return [row.version for row in await work.versions("orders", **asked)]

    assert await versions(limit=10) == [1, 2, 3, 4]
    assert await versions(after=1, limit=2) == [2, 3]
    assert await versions(newest_first=True, limit=3) == [4, 3, 2]
    assert await versions(after=1, states={DataKeyState.DISABLED}, limit=2) == [3]
    assert await versions(after=4, limit=2) == []


async def test_keys_that_are_due_or_leave_are_told_with_the_most_urgent_first(store: KeyStore) -> None:
    leaves = {"state": DataKeyState.PENDING_DESTROY, "version": 2}
    await fill(
        store,
        data_key(id=1, keyring="a", rotate_after=CREATED + DAY),
        data_key(id=2, keyring="b", rotate_after=CREATED),
        data_key(id=3, keyring="c", rotate_after=CREATED + 2 * DAY),
        data_key(id=4, keyring="d"),
        data_key(id=5, keyring="a", destroy_after=CREATED + 2 * DAY, rotate_after=CREATED, **leaves),
        data_key(id=6, keyring="b", destroy_after=CREATED + DAY, **leaves),
    )
    async with store.reading() as work:
        assert [row.id for row in await work.due_keys(CREATED + DAY, limit=10)] == [2, 1]
        assert [row.id for row in await work.due_keys(CREATED + DAY, limit=1)] == [2]
        assert [row.id for row in await work.leaving_keys(limit=10)] == [6, 5]
        assert [row.id for row in await work.leaving_keys(limit=1)] == [6]
