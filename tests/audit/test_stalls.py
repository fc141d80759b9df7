"""What somebody with the database can put in the sequencer's way does not hold it up for long, or silently."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from keystead.errors import ConflictError
from keystead.ledger.audit.looking import BATCH, SHUT_S
from keystead.ledger.audit.sequencer import LONGEST_REST_S
from tests.audit.places import Place, auditing_of, kinds, options, seal
from tests.fakes.clock import FakeClock


def put_in_the_way(place: Place, sessions: list[str]) -> None:
    """Insert a batch of entries, with the lowest ids, of sessions whose WRAP key cannot be unwrapped now."""
    wrapped = place.execute("SELECT wrapped_key FROM audit_sessions LIMIT 1")[0][0]
    for session in sessions:
        place.execute("INSERT INTO audit_sessions VALUES (?, ?, ?, ?)", session, "node", wrapped, 0)
    for number in range(BATCH):
        session = sessions[number % len(sessions)]
        place.insert(number.to_bytes(16), session, b"x", b"x" * 32)


async def test_a_lease_whose_row_was_lost_is_taken_with_a_token_above_the_last_one(place: Place) -> None:
    for _ in range(3):
        async with place.open(audit=options()) as km:
            await seal(km)
    [[before]] = place.execute("SELECT token FROM audit_state")
    place.execute("DELETE FROM leases")
    async with place.open(audit=options()) as km:
        await km.audit.record("order.paid")
        await seal(km)
        assert place.waiting() == 0
        assert place.execute("SELECT token FROM audit_state")[0][0] == before + 1
        place.execute("DELETE FROM leases")
        await km.audit.record("order.paid")
        await seal(km)
        assert place.waiting() == 0
        assert len(await km.audit.entries(action="audit.sequencer")) == 4


async def test_who_only_meets_conflicts_rests_longer_each_time_and_says_so_aloud(
    sqlite_place: Place, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    async with sqlite_place.open(audit=options(), clock=clock, grace_s=None) as km:
        await seal(km)
        auditing = auditing_of(km)
        sqlite_place.execute("CREATE TRIGGER stuck BEFORE UPDATE ON audit_state BEGIN SELECT RAISE(IGNORE); END")
        await km.audit.record("order.paid")
        before = sqlite_place.waiting()
        for _ in range(50):
            assert await auditing.step(is_urgent=True) == 0
        # The first conflict loses the lead, the second one tells; then it waits for its time.
        assert sqlite_place.waiting() <= before + 2
        told = [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]
        assert [text for text in told if "2 times in a row" in text]
        for _ in range(12):
            clock.advance(LONGEST_REST_S)
            await auditing.step(is_urgent=True)
        assert "rests for 60 s" in caplog.text
        sqlite_place.execute("DROP TRIGGER stuck")
        clock.advance(LONGEST_REST_S)
        await seal(km)
        assert sqlite_place.waiting() == 0
        assert (await km.audit.verify()).valid


async def test_sessions_that_cannot_be_opened_now_hold_up_no_other(
    sqlite_place: Place, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with sqlite_place.open(audit=options(), clock=clock, grace_s=None) as km:
        await seal(km)
        shut = [letter * 32 for letter in "abc"]
        put_in_the_way(sqlite_place, shut)
        sequencer = auditing_of(km)._sequencer
        assert sequencer is not None
        opened = sequencer._sessions.open
        asked: list[str] = []

        async def open_one(row: Any) -> Any:
            if row is not None and row.id in shut:
                asked.append(row.id)
                raise ConflictError("not now")
            return await opened(row)

        monkeypatch.setattr(sequencer._sessions, "open", open_one)
        await km.audit.record("order.paid", number=1)
        await seal(km)
        assert len(await km.audit.entries(action="order.paid")) == 1
        await km.audit.record("order.paid", number=2)
        await seal(km)
        assert (sorted(asked), sqlite_place.waiting()) == (shut, BATCH)
        clock.advance(SHUT_S)
        monkeypatch.undo()
        await seal(km)
        assert sqlite_place.waiting() == 0


@pytest.mark.parametrize("which", ["action = 'order.paid'", "kind = 'checkpoint'", "seq = 0"])
async def test_a_line_that_is_text_and_no_bytes_is_found(sqlite_place: Place, which: str) -> None:
    async with sqlite_place.open(audit=options()) as km:
        await km.audit.record("order.paid", number=1)
        await km.audit.checkpoint()
        policy = await km.audit.trust_policy()
    sqlite_place.tamper(f"UPDATE audit_log SET line = CAST(line AS TEXT) WHERE {which}")
    async with sqlite_place.open(audit=None) as km:
        await km.audit.entries()
        report = await km.audit.verify(policy=policy)
    assert kinds(report) & {"modified", "malformed"}


async def test_who_comes_too_late_to_seal_blames_no_entry(
    sqlite_place: Place, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with sqlite_place.open(audit=options()) as km, sqlite_place.open(audit=options()) as other:
        await seal(km)
        sequencer = auditing_of(km)._sequencer
        assert sequencer is not None
        assert sequencer._lead is not None
        # It has met a conflict, and so looks whether what waits is in the log already.
        sequencer._lead.conflicts = 1
        known = sequencer._sessions.known

        async def late(*given: Any) -> Any:
            monkeypatch.undo()
            found = await known(*given)
            sqlite_place.execute("DELETE FROM leases")
            await seal(other)
            return found

        monkeypatch.setattr(sequencer._sessions, "known", late)
        await km.audit.record("order.paid")
        await auditing_of(km).step()
        assert len(await other.audit.entries(action="order.paid")) == 1
        assert [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR] == []
        assert (await other.audit.verify()).valid
