"""Wishes for re-encryptions: one a field that has not ended, taken by one worker at a time."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from keystead.errors import ConflictError
from keystead.ports import KeyStore, WishKind, WishRecord, WishState

WISH = WishRecord("0" * 16, "people.email", WishKind.PLAN, "ada")
HOUR_MS = 3_600_000


async def add(store: KeyStore, wish: WishRecord = WISH) -> WishRecord:
    async with store.transaction() as work:
        return await work.add_wish(wish)


async def take(store: KeyStore, worker: str, *, ttl_ms: int = HOUR_MS) -> WishRecord | None:
    async with store.transaction() as work:
        return await work.take_wish(WISH.id, worker, ttl_ms)


async def found(store: KeyStore) -> WishRecord:
    async with store.reading() as work:
        record = await work.find_wish(WISH.id)
    assert record is not None
    return record


async def test_a_field_has_one_wish_that_has_not_ended(store: KeyStore) -> None:
    await add(store)
    with pytest.raises(ConflictError):
        await add(store, replace(WISH, id="1" * 16))
    await add(store, replace(WISH, id="2" * 16, field_id="people.name"))
    async with store.transaction() as work:
        assert await work.cancel_wish(WISH.id) is not None
    await add(store, replace(WISH, id="1" * 16))


async def test_exactly_one_of_two_workers_takes_a_wish(store: KeyStore) -> None:
    await add(store)
    taken = await asyncio.gather(*[take(store, f"worker {number}") for number in range(8)])
    (one,) = [each for each in taken if each is not None]
    assert (await found(store)).worker == one.worker
    assert one.state is WishState.TAKEN


async def test_a_wish_whose_worker_says_nothing_is_taken_again_and_lost_to_the_first(store: KeyStore) -> None:
    await add(store)
    assert await take(store, "first", ttl_ms=1) is not None
    await asyncio.sleep(0.01)
    assert await take(store, "second") is not None
    async with store.transaction() as work:
        assert not await work.hold_wish(WISH.id, "first", HOUR_MS)
        assert not await work.end_wish(WISH.id, "first", WishState.DONE, plan="{}")
        assert await work.end_wish(WISH.id, "second", WishState.FAILED, error_code="conflict")
    ended = await found(store)
    assert (ended.state, ended.plan, ended.error_code) == (WishState.FAILED, None, "conflict")
    assert ended.ended_ms is not None
    assert await take(store, "third") is None


async def test_a_wish_that_is_let_go_may_be_cancelled_and_one_that_is_held_may_not(store: KeyStore) -> None:
    await add(store)
    await take(store, "worker")
    async with store.transaction() as work:
        assert await work.cancel_wish(WISH.id) is None
        assert await work.hold_wish(WISH.id, "worker", 0, "job")
        cancelled = await work.cancel_wish(WISH.id)
    assert cancelled is not None
    assert (cancelled.state, cancelled.job_id) == (WishState.CANCELLED, "job")
    assert await take(store, "another") is None


async def test_only_the_newest_wishes_of_a_field_are_kept_and_old_ones_go(store: KeyStore) -> None:
    for number in range(5):
        await add(store, replace(WISH, id=f"{number:016}"))
        async with store.transaction() as work:
            await work.cancel_wish(f"{number:016}")
        await asyncio.sleep(0.002)
    last = await add(store, replace(WISH, id="f" * 16))
    async with store.transaction() as work:
        await work.trim_wishes(WISH.field_id, 3)
        assert [each.id for each in await work.wishes([WISH.field_id])] == ["f" * 16, f"{4:016}", f"{3:016}"]
        assert await work.remove_wishes(last.asked_ms, 1) == 1
        assert await work.remove_wishes(last.asked_ms, 10) == 1
        assert [each.id for each in await work.wishes([WISH.field_id])] == ["f" * 16]


async def test_who_listens_is_told_until_they_stop_or_are_not_heard_of(store: KeyStore) -> None:
    async with store.transaction() as work:
        await work.listen("people.email", "first", HOUR_MS)
        await work.listen("people.email", "second", HOUR_MS)
        await work.listen("people.name", "third", HOUR_MS)
        await work.listen("people.name", "third", 0)
        found = await work.listeners(["people.email", "people.name", "people.phone"])
    assert (found["people.email"].waiting, found["people.name"].waiting) == (2, 0)
    assert found["people.name"].since_ms is None
    assert "people.phone" not in found
    await asyncio.sleep(0.002)
    async with store.transaction() as work:
        now = await work.now_ms()
        await work.listen("people.name", "fourth", HOUR_MS)
        assert await work.remove_listeners(now, 10) == 0, "a new one had cleared what was over"
        await work.listen("people.email", "second", 0)
        await work.listen("people.email", "first", 0)
        assert await work.remove_listeners(now + HOUR_MS, 1) == 1
        assert await work.remove_listeners(now + HOUR_MS, 10) == 1
