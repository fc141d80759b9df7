"""One session follows another: by either time, while others write, and where it cannot begin."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta

import pytest

from keystead.errors import KMSError, NotInitializedError, StorageOperationError
from keystead.ledger.audit.trail import Told, Trail
from keystead.ledger.format.records import Session
from keystead.manager.manager import KeyManager
from keystead.model import KeyReference
from keystead.ports import AuditEntryRow, AuditEvent, AuditSessionRow, Detail, UnitOfWork
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


async def noted(km: KeyManager, keyring: str) -> int:
    """Return how many waiting entries are about a keyring."""
    async with auditing_of(km).trail.store.reading() as work:
        return sum(f'"keyring":"{keyring}"'.encode() in row.entry for row in await work.audit_entries())


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


async def test_a_session_that_begins_while_the_memory_is_put_back_is_not_written_in(
    sqlite_place: Place, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with sqlite_place.open(audit=options(), clock=clock, grace_s=None) as km:
        clock.advance(DAY_AND_AN_HOUR)
        begun, goes_on = hold_first_transaction(monkeypatch, auditing_of(km).trail, fails=False)
        first = asyncio.create_task(km.audit.record("order.paid"))
        await begun.wait()
        km.after_restore()
        goes_on.set()
        await first
        assert await sessions(km, "order.paid") == (await sessions(km, "audit.session"))[-1:]
        assert len(await sessions(km, "audit.session")) == 3
        assert await rejected(km) == []
        assert (await km.audit.verify()).valid


async def test_a_lead_that_is_taken_while_the_memory_is_put_back_is_taken_anew(
    sqlite_place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with sqlite_place.open(audit=options()) as km:
        sequencer = auditing_of(km)._sequencer
        assert sequencer is not None
        real = sequencer._stream_sessions
        drawn: list[str] = []

        class Meanwhile:
            async def draw(self, stream: str) -> tuple[Session, bytes, KeyReference]:
                found = await real.draw(stream)
                drawn.append(found[0].id)
                if len(drawn) == 1:
                    km.after_restore()
                return found

        monkeypatch.setattr(sequencer, "_stream_sessions", Meanwhile())
        await km.audit.record("order.paid")
        await seal(km)
        await seal(km)
        assert f'"id":"{drawn[0]}"' not in b"".join(sqlite_place.lines()).decode()
        assert len(await km.audit.entries(action="order.paid")) == 1
        assert (await km.audit.verify()).valid


async def test_only_what_its_own_task_notes_is_gathered(sqlite_place: Place) -> None:
    async with sqlite_place.open(audit=options()) as km:
        trail = auditing_of(km).trail
        async with trail.gathering():
            await trail.note(AuditEvent("key.load", "mine"))
            await asyncio.create_task(trail.note(AuditEvent("kek.confirm")))
            assert (len(await sessions(km, "kek.confirm")), await noted(km, "mine")) == (1, 0)
            async with trail.gathering():
                await trail.note(AuditEvent("key.load", "mine"))
            assert await noted(km, "mine") == 0
        assert await noted(km, "mine") == 2


async def test_what_was_noted_is_written_although_the_block_fails(sqlite_place: Place) -> None:
    async with sqlite_place.open(audit=options()) as km:
        trail = auditing_of(km).trail

        async def fail() -> None:
            async with trail.gathering():
                await trail.note(AuditEvent("key.load", "mine"))
                raise StorageOperationError("no")

        with pytest.raises(StorageOperationError):
            await fail()
        assert await noted(km, "mine") == 1


@pytest.mark.parametrize(
    "details",
    [
        {"reason": "moved", "horizon": 1},
        {"files": {}, "reason": "moved", "horizon": 1},
        {"files": [{"file": 1}], "reason": "moved", "horizon": 1},
        {"files": [{"file": "1", "first": 0, "last": 1}], "reason": "moved", "horizon": 1},
        {"files": [{"file": 1, "first": 0, "last": True}], "reason": "moved", "horizon": 1},
        {"files": [7], "reason": "moved", "horizon": 1},
        {"files": [], "reason": 7, "horizon": 1},
        {"files": [], "reason": "moved"},
        {"files": [], "reason": "moved", "horizon": -1},
    ],
    ids=repr,
)
async def test_what_asks_for_a_word_of_files_that_cannot_be_is_passed_over(
    sqlite_place: Place, details: dict[str, Detail], caplog: pytest.LogCaptureFixture
) -> None:
    async with sqlite_place.open(audit=options()) as km:
        await auditing_of(km).trail.tell(AuditEvent("audit.retire", details=details))
        await seal(km)
        assert "files that cannot be" in caplog.text
        assert b'"k":"retention"' not in b"".join(sqlite_place.lines())
        report = await km.audit.verify()
        assert report.valid
        assert [warning for warning in report.log.warnings if "which cannot be" in warning]


async def test_a_horizon_is_never_one_that_a_session_still_writes_behind(sqlite_place: Place) -> None:
    async with sqlite_place.open(audit=options()) as km:
        details: dict[str, Detail] = {"files": [], "reason": "moved", "horizon": 2**53 - 1}
        await auditing_of(km).trail.tell(AuditEvent("audit.retire", details=details))
        await seal(km)
        await km.audit.record("order.paid")
        assert await rejected(km) == []


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
        sqlite_place.insert_entry(row)
        assert await rejected(km) == []
        assert len(await km.audit.entries(action="order.meanwhile")) == 1


async def test_the_session_before_ends_with_its_last_number(sqlite_place: Place, clock: FakeClock) -> None:
    async with sqlite_place.open(audit=options(), clock=clock, grace_s=None) as km:
        [before] = await sessions(km, "audit.session")
        clock.advance(DAY_AND_AN_HOUR)
        await km.audit.record("order.paid")
        assert await sessions(km, "audit.session_end") == [before]
        rows = sqlite_place.execute("SELECT entry FROM audit_entries WHERE session = ? ORDER BY id", before)
        last = json.loads(rows[-1][0])
        assert (last["action"], last["n"]) == ("audit.session_end", len(rows) - 1)


async def test_a_session_that_serves_no_more_has_no_end(sqlite_place: Place, clock: FakeClock) -> None:
    async with sqlite_place.open(audit=options(), clock=clock, grace_s=None) as km:
        clock.advance(timedelta(days=5))
        await km.audit.record("order.paid")
        assert await sessions(km, "audit.session_end") == []
        assert await rejected(km) == []
        assert (await km.audit.verify()).valid


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
            async with trail.transaction() as work:
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
    real = AuditRows.add_audit_entries
    drawn: list[asyncio.Task[AuditEntryRow]] = []
    async with sqlite_place.open(audit=options()) as km:
        trail = auditing_of(km).trail

        async def slow(self: AuditRows, entries: Sequence[AuditEntryRow]) -> None:
            await real(self, entries)
            if b"audit.session_end" in entries[0].entry:
                drawn.append(asyncio.create_task(trail.draw_elsewhere(AuditEvent("order.within"))))
                await asyncio.sleep(0.02)

        monkeypatch.setattr(AuditRows, "add_audit_entries", slow)
    sqlite_place.insert_entry(await drawn[0])
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
    real = AuditRows.add_audit_entries

    async def refuse(self: AuditRows, entries: Sequence[AuditEntryRow]) -> None:
        if b"audit.session_end" in entries[0].entry:
            raise StorageOperationError("no more ends")
        await real(self, entries)

    monkeypatch.setattr(AuditRows, "add_audit_entries", refuse)
    async with sqlite_place.open(audit=options()) as km:
        trail = auditing_of(km).trail
    with pytest.raises(KMSError):
        trail.draw_rows([Told(AuditEvent("order.paid"), None)])
    assert (await checked(sqlite_place)).valid
