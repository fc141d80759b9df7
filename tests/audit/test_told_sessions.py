"""What is told of sessions, by whomever: the first of it that is true counts."""

from __future__ import annotations

from datetime import timedelta

import pytest

from keystead.errors import InvalidSignatureError
from keystead.ledger.audit.sessions import LONGEST_MS, SLACK_MS, first_opened
from keystead.ledger.audit.told_sessions import PAGE, told_in, told_sessions
from keystead.ledger.audit.trail import Told
from keystead.ledger.format.tags import Tagger, unkeyed_tagger
from keystead.ports import AuditEntryRow, AuditEvent, AuditSessionRow
from tests.audit.places import Place, auditing_of, options, seal
from tests.fakes.clock import FakeClock

TRUE, FALSE, AWAY = (AuditSessionRow("s", node, b"", 0) for node in ("true", "false", "away"))
MAKE = unkeyed_tagger("s")


def opens(row: AuditSessionRow) -> Tagger | None:
    if row == FALSE:
        raise InvalidSignatureError("of another store")
    return MAKE if row == TRUE else None


def test_the_first_that_is_true_opens_a_session() -> None:
    assert first_opened(opens, [FALSE, AWAY, TRUE]) == (TRUE, MAKE)
    assert first_opened(opens, []) is None


def test_a_session_of_which_nothing_is_true_is_refused_unless_that_cannot_be_told() -> None:
    with pytest.raises(InvalidSignatureError):
        first_opened(opens, [FALSE, FALSE])
    assert first_opened(opens, [FALSE, AWAY]) is None


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b'{"action":"audit.session"',
        b'{"action":"audit.session"}',
        b'{"action":"audit.session","details":{"begun":1,"key":"no key"},"id":"","n":0,"node":"","ok":0,'
        b'"session":"s","time":""}',
    ],
)
def test_what_tells_of_no_session_tells_nothing(content: bytes) -> None:
    assert told_in([AuditEntryRow(b"", "s", content, b"")]) == []


async def test_a_session_is_looked_for_on_every_page_and_past_what_is_no_record(
    sqlite_place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("keystead.ledger.audit.told_sessions.PAGE", 2)
    async with sqlite_place.open(audit=options()) as first:
        row = auditing_of(first).trail._session
        assert row is not None
        for _ in range(2):
            async with sqlite_place.open(audit=options()) as km:
                await seal(km)
        await first.audit.record("order.paid")
        sqlite_place.tamper(
            "UPDATE audit_log SET line = x'00' "
            "WHERE seq = (SELECT max(seq) FROM audit_log WHERE action = 'audit.session')"
        )
        store = auditing_of(first).trail.store
        assert [told async for told in told_sessions(store, {row.id})] == [row.row]
        assert [told async for told in told_sessions(store, {"another"})] == []
    assert PAGE > 2


@pytest.mark.parametrize("step_ms", [LONGEST_MS + SLACK_MS + 60_000, -SLACK_MS - 60_000])
async def test_an_entry_of_a_time_at_which_its_session_was_none_is_rejected(
    place: Place, clock: FakeClock, step_ms: int
) -> None:
    async with place.open(audit=options(), clock=clock, grace_s=None) as km:
        trail, begun = auditing_of(km).trail, clock.now()
        session = trail._session
        assert session is not None
        clock.set(begun + timedelta(milliseconds=step_ms))
        [row], written = trail._draw_in(session, [Told(AuditEvent("order.paid"), None)])
        trail.settle(written, is_committed=False)
        clock.set(begun)
        place.insert_entry(row)
        await seal(km)
        assert [record.rejected for record in await km.audit.entries(action="audit.rejected")] == ["ended"]


async def test_a_horizon_is_not_taken_from_what_is_no_record(place: Place) -> None:
    async with place.open(audit=options()) as km:
        await km.audit.record("order.paid")
        await seal(km)
    place.tamper("DELETE FROM audit_log WHERE seq = 0", "DELETE FROM audit_state")
    line = b"no record"
    place.execute("UPDATE audit_log SET line = ? WHERE seq = (SELECT min(seq) FROM audit_log)", line)
    async with place.open(audit=None) as km:
        sequencer = auditing_of(km)._sequencer
        assert sequencer is not None
        async with auditing_of(km).trail.store.reading() as work:
            assert await sequencer._told_horizon(work) == 0
