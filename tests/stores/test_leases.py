"""Leases and heartbeats: one owner at a time, tokens that only grow, times of the database's clock."""

from __future__ import annotations

import asyncio
import time

import pytest

from keystead.errors import ConflictError, InvalidInputError
from keystead.ports import KeyStore, Lease, NodeRecord
from keystead.stores.memory import MemoryKeyStore
from tests.fakes.clock import FakeClock

HOUR_MS = 3_600_000


async def claim(store: KeyStore, owner: str, ttl_ms: int = HOUR_MS) -> Lease | None:
    async with store.transaction() as work:
        return await work.claim_lease("rotate", owner, ttl_ms)


async def check(store: KeyStore, lease: Lease) -> None:
    async with store.transaction() as work:
        await work.check_lease(lease)


async def test_the_clock_is_of_this_time(store: KeyStore) -> None:
    async with store.reading() as work:
        assert abs(await work.now_ms() - time.time() * 1000) < 5_000


async def test_one_of_64_claimers_gets_the_lease(store: KeyStore) -> None:
    claims = await asyncio.gather(*(claim(store, f"node-{n}") for n in range(64)))
    assert len([lease for lease in claims if lease is not None]) == 1


async def test_renewing_keeps_the_token_and_moves_the_end(store: KeyStore) -> None:
    first = await claim(store, "a", 1000)
    second = await claim(store, "a", HOUR_MS)
    assert first is not None
    assert second is not None
    assert (second.token, second.until_ms > first.until_ms) == (first.token, True)


async def test_a_token_is_never_below_one_that_was_given_before_the_row_was_lost(store: KeyStore) -> None:
    async def token(owner: str, floor: int) -> int:
        async with store.transaction() as work:
            lease = await work.claim_lease("rotate", owner, HOUR_MS, floor=floor)
            assert lease is not None
            if owner != "b":
                await work.drop_lease(lease)
            return lease.token

    assert await token("a", 7) == 8
    assert await token("a", 20) == 21
    assert await token("b", 3) == 22
    assert await token("b", 22) == 22
    assert await token("b", 30) == 31


async def test_a_held_lease_is_refused_to_others(store: KeyStore) -> None:
    await claim(store, "a")
    assert await claim(store, "b") is None


async def test_an_expired_lease_goes_to_another_owner_with_a_greater_token(store: KeyStore) -> None:
    first = await claim(store, "a", 1)
    await asyncio.sleep(0.02)
    second = await claim(store, "b")
    assert first is not None
    assert second is not None
    assert second.token > first.token
    with pytest.raises(ConflictError, match="lost"):
        await check(store, first)
    await check(store, second)


async def test_a_dropped_lease_is_free_and_its_token_still_grows(store: KeyStore) -> None:
    first = await claim(store, "a")
    assert first is not None
    async with store.transaction() as work:
        await work.drop_lease(first)
    with pytest.raises(ConflictError):
        await check(store, first)
    second = await claim(store, "b")
    assert second is not None
    assert second.token > first.token


async def test_a_lost_lease_cannot_be_dropped(store: KeyStore) -> None:
    first = await claim(store, "a", 1)
    await asyncio.sleep(0.02)
    second = await claim(store, "b")
    assert first is not None
    assert second is not None
    async with store.transaction() as work:
        await work.drop_lease(first)
    await check(store, second)


async def test_a_checked_lease_cannot_be_claimed_before_the_transaction_ends(store: KeyStore) -> None:
    lease = await claim(store, "a", 1)
    assert lease is not None
    await asyncio.sleep(0.02)
    async with store.transaction() as work:
        await work.check_lease(lease)
        thief = asyncio.create_task(claim(store, "b"))
        await asyncio.sleep(0.2)
        assert not thief.done()
    assert await thief is not None


@pytest.mark.parametrize(("owner", "ttl_ms"), [("", 1000), ("a", 0), ("a", -1)])
async def test_a_lease_without_owner_or_time_is_refused(store: KeyStore, owner: str, ttl_ms: int) -> None:
    with pytest.raises(InvalidInputError):
        await claim(store, owner, ttl_ms)


async def test_only_nodes_with_a_heartbeat_are_live(store: KeyStore) -> None:
    async with store.transaction() as work:
        await work.beat("a", 3, HOUR_MS)
        await work.beat("a", 5, HOUR_MS)
        await work.beat("b", 5, HOUR_MS)
        await work.beat("dead", 1, 1)
        await work.drop_node("b")
    await asyncio.sleep(0.02)
    async with store.reading() as work:
        nodes = await work.live_nodes()
    assert [(node.node_id, node.seen_epoch) for node in nodes] == [("a", 5)]


async def test_what_has_expired_is_dropped_and_counted(store: KeyStore) -> None:
    async with store.transaction() as work:
        await work.beat("dead", 1, 1)
        await work.beat("live", 1, HOUR_MS)
        await work.claim_lease("old", "a", 1)
        await work.claim_lease("held", "a", HOUR_MS)
    await asyncio.sleep(0.02)
    async with store.transaction() as work:
        assert await work.drop_expired() == 2
        assert await work.drop_expired() == 0


async def test_a_memory_store_takes_its_time_from_the_clock_it_is_given() -> None:
    clock = FakeClock()
    store = MemoryKeyStore(clock=clock)
    now = int(clock.now().timestamp() * 1000)
    async with store.transaction() as work:
        await work.beat("a", 1, 1000)
        assert await work.live_nodes() == [NodeRecord("a", 1, now + 1000)]
    clock.advance(1)
    async with store.reading() as work:
        assert await work.live_nodes() == []
    await store.aclose()


async def test_a_heartbeat_waits_for_a_transaction_that_is_changing_keys(store: KeyStore) -> None:
    """Else a rotation that looked at the nodes a moment ago makes a version active that the new node never read."""

    async def beat() -> None:
        async with store.transaction() as work:
            await work.beat("new", 0, HOUR_MS)

    async with store.transaction() as work:
        await work.bump_epoch()
        beating = asyncio.create_task(beat())
        await asyncio.wait({beating}, timeout=0.3)
        assert not beating.done()
    await beating
