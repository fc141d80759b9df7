"""One session follows another: by either time, while others write, and where it cannot begin."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

import pytest

from keystead.errors import KMSError, NotInitializedError, StorageOperationError
from keystead.ledger.audit.trail import AuditedStore, Told, Trail
from keystead.manager.manager import KeyManager
from keystead.ports import AuditEntryRow, AuditEvent, AuditSessionRow, UnitOfWork
from keystead.stores.audit_rows import AuditRows
from tests.audit.places import Place, auditing_of, checked, options, seal
from tests.fakes.clock import FakeClock

DAY_AND_AN_HOUR = timedelta(hours=25)


async def rejected(km: KeyManager) -> list[str]:
    """Seal what waits, and return why entries were rejected."""
    await seal(km)
    return [record.rejected for record in await km.audit.entries() if record.rejected is not None]


async def sessions(km: KeyManager, action: str) -> list[str]:
    """Return the sessions that the waiting entries of an action are of, in the order in which they were written."""
    async with auditing_of(km).trail.store.reading() as work:
        return [row.session for row in await work.audit_entries() if f'"action":"{action}"'.encode() in row.entry]


def insert(place: Place, row: AuditEntryRow) -> None:
    """Insert an entry as a transaction of somebody else's does."""
    place.execute("INSERT INTO audit_entries VALUES (?, ?, ?, ?)", row.id, row.session, row.entry, row.code)


def no_more_sessions(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no session be written any more, and everything else."""

    async def refuse(self: AuditRows, session: AuditSessionRow) -> None:
        raise StorageOperationError("no more sessions")

    monkeypatch.setattr(AuditRows, "add_audit_session", refuse)


def hold_first_transaction(
    monkeypatch: pytest.MonkeyPatch, trail: Trail, *, fails: bool
) -> tuple[asyncio.Event, asyncio.Event]:
    """Hold the next transaction up; return what tells that it has begun, and what lets it go on."""
    real, begun, goes_on = trail.store.transaction, asyncio.Event(), asyncio.Event()

    @asynccontextmanager
    async def held() -> AsyncIterator[UnitOfWork]:
        is_first = not begun.is_set()
        begun.set()
        if is_first:
            await goes_on.wait()
            if fails:
                raise StorageOperationError("the connection is gone")
        async with real() as work:
            yield work

    monkeypatch.setattr(trail.store, "transaction", held)
    return begun, goes_on


@pytest.mark.parametrize("fails", [False, True])
async def test_whoever_comes_while_a_session_begins_waits_whether_it_does(
    sqlite_place: Place, clock: FakeClock, monkeypatch: pytest.MonkeyPatch, fails: bool
) -> None:
    async with sqlite_place.open(audit=options(), clock=clock, grace_s=None) as km:
        [before] = await sessions(km, "audit.session")
        clock.advance(DAY_AND_AN_HOUR)
        begun, goes_on = hold_first_transaction(monkeypatch, auditing_of(km).trail, fails=fails)
        first = asyncio.create_task(km.rotate_data_key())
        await begun.wait()
        others = [asyncio.create_task(km.audit.record("order.paid", number=number)) for number in range(3)]
        await asyncio.sleep(0.02)
        assert not any(other.done() for other in others)
        goes_on.set()
        await asyncio.gather(first, *others)
        written = set(await sessions(km, "order.paid"))
        assert (written == {before}) is fails
        assert len(written) == 1
        assert await rejected(km) == []
        assert (await km.audit.verify(compares_store=True)).valid


async def test_what_is_drawn_while_another_session_begins_is_sealed(
    sqlite_place: Place, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with sqlite_place.open(audit=options(), clock=clock, grace_s=None) as km:
        trail, drawn, real = auditing_of(km).trail, [], AuditRows.add_audit_session
        clock.advance(DAY_AND_AN_HOUR)

        async def meanwhile(self: AuditRows, session: AuditSessionRow) -> None:
            # A transaction that had begun before the session was over.
            rows, written = trail.draw_rows([Told(AuditEvent("order.meanwhile"), None)])
            trail.settle(written, is_committed=True)
            drawn.extend(rows)
            await real(self, session)

        monkeypatch.setattr(AuditRows, "add_audit_session", meanwhile)
        await km.audit.record("order.paid")
        [row] = drawn
        insert(sqlite_place, row)
        assert await rejected(km) == []
        assert len(await km.audit.entries(action="order.meanwhile")) == 1


async def test_the_session_before_ends_with_its_last_number(sqlite_place: Place, clock: FakeClock) -> None:
    async with sqlite_place.open(audit=options(), clock=clock, grace_s=None) as km:
        [before] = await sessions(km, "audit.session")
        clock.advance(DAY_AND_AN_HOUR)
        await km.audit.record("order.paid")
        ends = dict(sqlite_place.execute("SELECT id, last FROM audit_sessions"))
        count = sqlite_place.execute("SELECT count(*) FROM audit_entries WHERE session = ?", before)[0][0]
        assert ends.pop(before) == count - 1
        assert list(ends.values()) == [None]


@pytest.mark.parametrize(
    "step",
    [timedelta(days=2, minutes=11), timedelta(days=400), timedelta(hours=25), -timedelta(minutes=11), -timedelta(9)],
    ids=str,
)
async def test_a_clock_that_is_set_has_another_session_begun(
    sqlite_place: Place, clock: FakeClock, step: timedelta
) -> None:
    async with sqlite_place.open(audit=options(), clock=clock, grace_s=None) as km:
        [before] = await sessions(km, "audit.session")
        clock.set(clock.now() + step)
        await km.audit.record("order.paid")
        assert before not in await sessions(km, "order.paid")
        assert await rejected(km) == []
    assert (await checked(sqlite_place, compares_store=True)).valid


async def test_a_clock_that_is_set_back_a_little_does_not(sqlite_place: Place, clock: FakeClock) -> None:
    async with sqlite_place.open(audit=options(), clock=clock, grace_s=None) as km:
        before = await sessions(km, "audit.session")
        clock.set(clock.now() - timedelta(minutes=4))
        await km.audit.record("order.paid")
        assert await sessions(km, "order.paid") == before
        assert await rejected(km) == []


async def test_what_would_be_rejected_is_refused_where_no_session_begins(
    sqlite_place: Place, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with sqlite_place.open(audit=options(), clock=clock, grace_s=None) as km:
        await seal(km)
        clock.set(clock.now() + timedelta(days=2, minutes=11))
        with monkeypatch.context() as patch:
            no_more_sessions(patch)
            for _ in range(2):
                with pytest.raises(StorageOperationError, match="no more sessions"):
                    await km.audit.record("order.paid")
            assert sqlite_place.waiting() == 0
        # And it is tried again at once.
        await km.audit.record("order.paid")
        assert await rejected(km) == []


async def test_with_warn_what_would_be_rejected_is_not_written(
    sqlite_place: Place, clock: FakeClock, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with sqlite_place.open(audit=options(on_failure="warn"), clock=clock, grace_s=None) as km:
        await seal(km)
        clock.set(clock.now() + timedelta(days=2, minutes=11))
        no_more_sessions(monkeypatch)
        await km.audit.record("order.paid")
        assert "NOT in the audit trail: order.paid (not_initialized)" in caplog.text
        assert await rejected(km) == []


async def test_a_clock_that_is_set_within_a_transaction_undoes_it(sqlite_place: Place, clock: FakeClock) -> None:
    async with sqlite_place.open(audit=options(), clock=clock, grace_s=None) as km:
        trail, before = auditing_of(km).trail, sqlite_place.waiting()

        async def change() -> None:
            async with AuditedStore(trail.store, trail).transaction() as work:
                await trail.record(work, AuditEvent("use.declare"))
                clock.set(clock.now() - timedelta(minutes=11))

        with pytest.raises(NotInitializedError):
            await change()
        assert sqlite_place.waiting() == before


async def test_a_session_that_still_serves_goes_on_where_none_begins_and_few_are_tried(
    sqlite_place: Place, clock: FakeClock, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with sqlite_place.open(audit=options(), clock=clock, grace_s=None) as km:
        before = await sessions(km, "audit.session")
        clock.advance(DAY_AND_AN_HOUR)
        no_more_sessions(monkeypatch)
        await asyncio.gather(*(km.audit.record("order.paid") for _ in range(3)), km.rotate_data_key())
        assert caplog.text.count("no audit session could be begun") == 1
        assert set(await sessions(km, "order.paid")) == set(before)


async def test_what_is_drawn_while_a_session_ends_rejects_neither(
    sqlite_place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = AuditRows.end_audit_session
    drawn: list[asyncio.Task[AuditEntryRow]] = []
    async with sqlite_place.open(audit=options()) as km:
        trail = auditing_of(km).trail

        async def slow(self: AuditRows, session_id: str, last: int) -> None:
            await real(self, session_id, last)
            drawn.append(asyncio.create_task(trail.draw_elsewhere(AuditEvent("order.within"))))
            await asyncio.sleep(0.02)

        monkeypatch.setattr(AuditRows, "end_audit_session", slow)
    insert(sqlite_place, await drawn[0])
    monkeypatch.undo()
    async with sqlite_place.open(audit=options()) as km:
        assert await rejected(km) == []
        [end] = await km.audit.entries(action="audit.session_end")
        [within] = await km.audit.entries(action="order.within")
        assert end.node == within.node
        assert (await km.audit.verify()).valid


async def test_a_session_whose_end_cannot_be_written_is_forgotten_all_the_same(
    sqlite_place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refuse(self: AuditRows, session_id: str, last: int) -> None:
        raise StorageOperationError("no more ends")

    monkeypatch.setattr(AuditRows, "end_audit_session", refuse)
    async with sqlite_place.open(audit=options()) as km:
        trail = auditing_of(km).trail
    with pytest.raises(KMSError):
        trail.draw_rows([Told(AuditEvent("order.paid"), None)])
    assert (await checked(sqlite_place)).valid
