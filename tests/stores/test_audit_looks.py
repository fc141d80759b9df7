"""What the sequencer asks in one statement each: as much as is sealed at once, and how the log and its lead stand."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from keystead.ports import AuditBatch, AuditEntryRow, AuditStateRow, KeyStore
from keystead.stores.memory import MemoryKeyStore
from tests.fakes.clock import FakeClock

HERE, THERE = "a" * 32, "b" * 32
STATE = AuditStateRow(size=7, state=b"state", code=b"code", key_id=5, token=3, checkpoint_size=4, rejected=1)


def entry(number: int, size: int, session: str = HERE) -> AuditEntryRow:
    return AuditEntryRow(number.to_bytes(16, "big"), session, bytes(size), bytes(32))


async def add(store: KeyStore, entries: Sequence[AuditEntryRow]) -> None:
    async with store.transaction() as work:
        await work.add_audit_entries(entries)


async def batch(
    store: KeyStore, *, most: int = 100, most_bytes: int = 1000, sessions: Sequence[str] | None = None
) -> tuple[list[int], bool]:
    async with store.reading() as work:
        found = await work.audit_batch(sessions=sessions, most=most, most_bytes=most_bytes)
    return [int.from_bytes(row.id, "big") for row in found.entries], found.has_more


async def test_of_nothing_there_is_no_more(store: KeyStore) -> None:
    async with store.reading() as work:
        assert await work.audit_batch(sessions=None, most=5, most_bytes=5) == AuditBatch([], has_more=False)


async def test_entries_come_whole_and_by_id_whoever_wrote_them_first(store: KeyStore) -> None:
    entries = [entry(3, 10), entry(1, 20, THERE), entry(2, 30)]
    await add(store, entries)
    async with store.reading() as work:
        found = await work.audit_batch(sessions=None, most=100, most_bytes=1000)
    assert found == AuditBatch(sorted(entries, key=lambda row: row.id), has_more=False)


@pytest.mark.parametrize(
    ("most_bytes", "expected"),
    [
        (400, ([1, 2, 3], False)),
        (399, ([1, 2], True)),
        (300, ([1, 2], True)),
        (299, ([1], True)),
        (99, ([1], True)),
        (1, ([1], True)),
    ],
)
async def test_no_more_bytes_are_taken_than_asked_for_unless_one_entry_has_them(
    store: KeyStore, most_bytes: int, expected: tuple[list[int], bool]
) -> None:
    await add(store, [entry(1, 100), entry(2, 200), entry(3, 100)])
    assert await batch(store, most_bytes=most_bytes) == expected


async def test_a_page_that_is_full_may_not_be_all(store: KeyStore) -> None:
    await add(store, [entry(number, 1) for number in range(1, 6)])
    assert await batch(store, most=4) == ([1, 2, 3, 4], True)
    assert await batch(store, most=5) == ([1, 2, 3, 4, 5], True)
    assert await batch(store, most=6) == ([1, 2, 3, 4, 5], False)


async def test_other_sessions_entries_neither_come_nor_count(store: KeyStore) -> None:
    await add(store, [entry(1, 900, THERE), entry(2, 500), entry(3, 500, THERE), entry(4, 500)])
    assert await batch(store, sessions=[HERE]) == ([2, 4], False)
    assert await batch(store, sessions=[HERE], most_bytes=999) == ([2], True)
    assert await batch(store, sessions=[HERE, THERE], most=2, most_bytes=9000) == ([1, 2], True)
    assert await batch(store, sessions=["c" * 32]) == ([], False)


async def test_state_and_lease_are_told_each_whether_or_not_the_other_is_there(store: KeyStore) -> None:
    async with store.transaction() as work:
        nothing = await work.audit_standing("lead")
        lease = await work.claim_lease("lead", "node", 60_000)
        await work.claim_lease("other", "elsewhere", 60_000)
        only_lease = await work.audit_standing("lead")
        await work.put_audit_state(STATE, expected=None)
        both, only_state = await work.audit_standing("lead"), await work.audit_standing("nobody")
    assert lease is not None
    assert nothing[:2] == (None, None)
    assert only_lease[:2] == (None, lease)
    assert both[:2] == (STATE, lease)
    assert only_state[:2] == (STATE, None)
    assert lease.until_ms - 60_000 <= both.now_ms < lease.until_ms - 50_000


async def test_the_clock_that_a_store_in_memory_is_given_is_the_one_that_counts() -> None:
    clock = FakeClock()
    store = MemoryKeyStore(clock=clock)
    await store.open()
    async with store.transaction() as work:
        lease = await work.claim_lease("lead", "node", 1000)
        told = await work.audit_standing("lead")
        assert (told.lease, told.now_ms) == (lease, await work.now_ms())
        assert await work.claim_lease("lead", "other", 1000) is None
    clock.advance(1.0)
    async with store.transaction() as work:
        assert (await work.audit_standing("lead")).now_ms == told.now_ms + 1000
        taken = await work.claim_lease("lead", "other", 1000)
        assert taken is not None
        assert (taken.owner, taken.until_ms) == ("other", told.now_ms + 2000)
    await store.aclose()
