"""Entries come into the log in whatever order they are committed, each once, by one process at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from keystead.errors import InvalidInputError, StoreUnavailableError
from keystead.ledger.audit.actor import audit_actor
from keystead.ledger.audit.entries import split_payload
from keystead.ledger.audit.looking import BATCH, SHUT_S
from keystead.ledger.format.records import parse_line
from keystead.manager.manager import KeyManager
from keystead.ports import AuditEvent
from tests.audit.places import Place, auditing_of, options, seal
from tests.fakes.clock import FakeClock


def engine_of(place: Place) -> AsyncEngine:
    """Return an engine of the application's own on the database of the store."""
    driver = "sqlite+aiosqlite:" if place.is_sqlite else "postgresql+psycopg:"
    return create_async_engine(driver + place.url.partition(":")[2])


async def numbers(km: KeyManager) -> list[Any]:
    """Return the numbers of the events, in the order of the log."""
    return [record.details["number"] for record in await km.audit.entries(action="order.paid")]


def free_the_lead(place: Place) -> None:
    """Let the lease of whoever seals run out."""
    place.execute("UPDATE leases SET until_ms = 0 WHERE name = 'keystead.audit'")


async def test_an_entry_that_is_committed_late_comes_in_behind_those_that_were_begun_later(postgres: Place) -> None:
    engine = engine_of(postgres)
    async with postgres.open(audit=options()) as km:
        async with engine.begin() as slow:
            await km.audit.record("order.paid", within=slow, number=1)
            await km.audit.record("order.paid", number=2)
            await seal(km)
            assert await numbers(km) == [2]
        await seal(km)
        assert await numbers(km) == [2, 1]
        assert (await km.audit.verify()).valid
    await engine.dispose()


async def test_what_the_application_rolls_back_leaves_no_entry_and_no_gap(place: Place) -> None:
    engine = engine_of(place)
    async with place.open(audit=options()) as km:
        async with engine.connect() as connection:
            await km.audit.record("order.paid", within=connection, number=1)
            await connection.rollback()
            await km.audit.record("order.paid", within=connection, number=2)
            await connection.commit()
        await km.audit.record("order.paid", number=3)
        await seal(km)
        assert await numbers(km) == [2, 3]
        assert (await km.audit.verify()).valid
    await engine.dispose()


async def test_many_entries_of_unknown_end_stay_short(place: Place) -> None:
    engine = engine_of(place)
    async with place.open(audit=options()) as km:
        async with engine.begin() as connection:
            for number in range(50):
                await km.audit.record("order.paid", within=connection, number=number)
        sizes = [len(row[0]) for row in place.execute("SELECT entry FROM audit_entries ORDER BY id")][-50:]
        assert max(sizes) - min(sizes) < 30
        await seal(km)
        assert (await km.audit.verify()).valid
    await engine.dispose()


async def test_a_change_that_is_rolled_back_leaves_no_entry_and_no_gap(place: Place) -> None:
    async with place.open(audit=options()) as km:
        session = await km.session()
        with pytest.raises(InvalidInputError, match="no"):
            async with session.surroundings.store.transaction() as work:
                await auditing_of(km).trail.record(work, AuditEvent("key.destroy", "default"))
                raise InvalidInputError("no")
        await km.audit.record("order.paid", number=1)
        await seal(km)
        assert "key.destroy" not in {record.action for record in await km.audit.entries()}
        assert (await km.audit.verify()).valid


async def test_entries_and_codes_stand_in_the_log_as_they_were_written(place: Place) -> None:
    async with place.open(audit=options()) as km:
        with audit_actor("user:\u00fc"):
            await km.audit.record("order.paid", text='"\\\u2028\x01\U0001f511', number=-(2**53) + 1)
        rows = place.execute("SELECT entry, code FROM audit_entries ORDER BY id")
        await seal(km)
    payloads = [parse_line(line) for line in place.lines()]
    sealed = [split_payload(record.payload) for record in payloads if record.kind is None]
    written = [(bytes(entry), bytes(code)) for entry, code in rows]
    assert [parts for parts in sealed if parts in written] == written


async def test_more_than_a_batch_is_sealed_whole_and_each_once(place: Place) -> None:
    async with place.open(audit=options()) as km:
        count = BATCH * 2 + 7
        await asyncio.gather(*(km.audit.record("order.paid", number=number) for number in range(count)))
        await seal(km)
        found = [record.details["number"] for record in await km.audit.entries(action="order.paid", limit=count + 1)]
        assert sorted(found) == list(range(count))


async def test_who_does_not_lead_seals_nothing_while_the_lease_lasts(place: Place) -> None:
    async with place.open(audit=options()) as one, place.open(audit=options()) as two:
        await one.audit.record("order.paid", number=1)
        await seal(one)
        await two.audit.record("order.paid", number=2)
        assert await seal(two) == 0
        assert await seal(one) > 0
        assert await numbers(two) == [1, 2]


async def test_a_leader_whose_lease_ran_out_is_replaced_and_begins_anew(place: Place) -> None:
    async with place.open(audit=options()) as one, place.open(audit=options()) as two:
        await one.audit.record("order.paid", number=1)
        await seal(one)
        free_the_lead(place)
        await two.audit.record("order.paid", number=2)
        assert await seal(two) > 0
        free_the_lead(place)
        await one.audit.record("order.paid", number=3)
        assert await seal(one) > 0
        assert await numbers(one) == [1, 2, 3]
        report = await one.audit.verify()
        assert (report.valid, report.log.sessions) == (True, 3)


async def test_a_leader_that_slept_while_another_sealed_keeps_nothing_of_its_batch(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with place.open(audit=options()) as one, place.open(audit=options()) as two:
        await one.audit.record("order.paid", number=1)
        await seal(one)
        await one.audit.record("order.paid", number=2)
        sequencer = auditing_of(one)._sequencer
        assert sequencer is not None
        known: Callable[..., Awaitable[Any]] = sequencer._sessions.known

        async def asleep(*given: Any) -> Any:
            monkeypatch.setattr(sequencer._sessions, "known", known)
            free_the_lead(place)
            await seal(two)
            return await known(*given)

        monkeypatch.setattr(sequencer._sessions, "known", asleep)
        await seal(one)
        assert await numbers(one) == [1, 2]
        report = await two.audit.verify()
        assert report.valid


async def test_waiting_until_everything_is_sealed_returns_when_it_is(place: Place) -> None:
    async with place.open(audit=options()) as km:
        await km.audit.record("order.paid", number=1)
        await km.audit.sequenced()
        assert place.waiting() == 0
        assert await numbers(km) == [1]


async def test_waiting_ends_where_nobody_can_seal(place: Place) -> None:
    async with place.open(audit=options()) as km:
        await seal(km)
        place.execute(
            "UPDATE leases SET owner = 'elsewhere', until_ms = until_ms + 30000 WHERE name = 'keystead.audit'"
        )
        await km.audit.record("order.paid", number=1)
        with pytest.raises(StoreUnavailableError, match="keystead audit status"):
            await km.audit.sequenced(timeout_s=0.2)
        place.execute("UPDATE leases SET owner = '', until_ms = 0 WHERE name = 'keystead.audit'")


async def test_a_manager_with_a_background_seals_without_being_asked(place: Place) -> None:
    async with place.open(audit=options(interval_s=0.05), background=True) as km:
        await km.audit.record("order.paid", number=1)
        for _ in range(400):
            if not place.waiting():
                break
            await asyncio.sleep(0.05)
        assert await numbers(km) == [1]


async def test_a_session_that_cannot_be_opened_now_holds_up_nobody_else(
    place: Place, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with place.open(audit=options()) as km:
        await seal(km)
    async with place.open(audit=options()) as one:
        await asyncio.gather(*(one.audit.record("order.paid", number=number) for number in range(BATCH + 5)))
        async with place.open(audit=options(), clock=clock, grace_s=None) as two:
            await two.audit.record("order.paid", number=-1)
            sequencer = auditing_of(two)._sequencer
            assert sequencer is not None
            unavailable = StoreUnavailableError("the KMS is away")
            opened = sequencer._sessions.open

            async def open_one(row: Any) -> Any:
                if row is not None and row.node != auditing_of(two).trail.node:
                    raise unavailable
                return await opened(row)

            monkeypatch.setattr(sequencer._sessions, "open", open_one)
            await seal(two)
            assert await numbers(two) == [-1]
            monkeypatch.undo()
            clock.advance(SHUT_S)
            await seal(two)
            assert len(await two.audit.entries(action="order.paid", limit=BATCH * 2)) == BATCH + 6
