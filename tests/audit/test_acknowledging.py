"""What was found and cannot be mended is a finding until somebody has said that it was looked into."""

from __future__ import annotations

import secrets
from pathlib import Path

import pytest

from keystead.errors import InvalidInputError
from keystead.ledger.audit.acknowledging import ACKNOWLEDGE, Outstanding, acknowledged
from keystead.manager.manager import KeyManager
from keystead.ports import AuditEvent
from tests.audit.places import Place, auditing_of, checked, kinds, options, seal


def forge(place: Place, count: int = 1) -> None:
    """Insert entries that nobody with a key has written."""
    for _ in range(count):
        place.insert(secrets.token_bytes(16), "0" * 32, b"{}", bytes(32))


async def last_record(km: KeyManager) -> int:
    """Return the number of the last record."""
    return (await km.audit.verify()).log.size - 1


async def delete_one(km: KeyManager, place: Place) -> None:
    """Delete an entry before it is sealed, and let its session go on."""
    await km.audit.record("order.lost")
    last = place.execute("SELECT id FROM audit_entries ORDER BY id DESC LIMIT 1")[0][0]
    place.execute("DELETE FROM audit_entries WHERE id = ?", last)
    await km.audit.record("order.paid")
    await seal(km)


async def test_a_checkpoint_acknowledges_nothing_whoever_keeps_it(place: Place, tmp_path: Path) -> None:
    file = tmp_path / "kept"
    async with place.open(audit=options(checkpoint_file=file)) as km:
        forge(place)
        await km.audit.checkpoint()
    report = await checked(place, since=file.read_bytes())
    assert (kinds(report), len(report.outstanding.records)) == ({"inserted"}, 1)


async def test_what_was_acknowledged_is_a_warning_from_then_on(place: Place) -> None:
    async with place.open(audit=options()) as km:
        forge(place, 3)
        await seal(km)
        found = await km.audit.acknowledge(await last_record(km), reason="a test of ours")
        assert len(found.records) == 3
        # While the entry waits that says so, and once it is sealed.
        for _ in range(2):
            report = await km.audit.verify()
            assert (report.valid, report.rejected, bool(report.outstanding)) == (True, 3, False)
            assert sum("(acknowledged)" in warning for warning in report.log.warnings) == 3
            await seal(km)
        [told] = await km.audit.entries(action=ACKNOWLEDGE)
        assert told.details["reason"] == "a test of ours"


async def test_what_comes_after_what_was_looked_into_is_a_finding(place: Place) -> None:
    async with place.open(audit=options()) as km:
        forge(place)
        await seal(km)
        looked_into = await last_record(km)
        forge(place)
        await seal(km)
        assert len((await km.audit.acknowledge(looked_into, reason="looked into")).records) == 1
        await seal(km)
        report = await km.audit.verify()
        assert (kinds(report), len(report.outstanding.records)) == ({"inserted"}, 1)
        # And no number that is still to come is acknowledged.
        await km.audit.acknowledge(10**9, reason="looked into")
        await seal(km)
        assert (await km.audit.verify()).valid
        forge(place)
        await seal(km)
        assert kinds(await km.audit.verify()) == {"inserted"}


async def test_a_state_that_was_altered_is_a_finding_until_it_was_acknowledged(place: Place) -> None:
    async with place.open(audit=options()) as km:
        await km.audit.record("order.paid")
    place.execute("DELETE FROM audit_state")
    async with place.open(audit=options()) as km:
        await km.audit.record("order.paid")
        await seal(km)
        assert kinds(await km.audit.verify()) == {"modified"}
        await km.audit.acknowledge(await last_record(km), reason="restored by hand")
        report = await km.audit.verify()
    assert report.valid
    assert ["was gone, or not authentic" in warning for warning in report.log.warnings if "(ack" in warning] == [True]


async def test_missing_entries_are_acknowledged_as_far_as_they_were_looked_into(place: Place) -> None:
    async with place.open(audit=options()) as km:
        await delete_one(km, place)
        looked_into = await last_record(km)
        await delete_one(km, place)
        found = await km.audit.acknowledge(looked_into, reason="a disk was full")
        assert (found.records, found.entries) == ([], 1)
        await seal(km)
        report = await km.audit.verify()
        assert (kinds(report), report.outstanding.entries) == ({"missing"}, 1)
        await km.audit.acknowledge(await last_record(km), reason="and again")
        report = await km.audit.verify()
        assert (report.valid, sum("not here" in warning for warning in report.log.warnings)) == (True, 1)


async def test_nobody_without_a_key_acknowledges_anything(place: Place) -> None:
    async with place.open(audit=options()) as km:
        forge(place)
        await seal(km)
        await km.audit.acknowledge(await last_record(km), reason="looked into")
        place.execute("UPDATE audit_entries SET code = ?", bytes(32))
        assert not (await km.audit.verify()).valid
        await seal(km)
        assert len((await km.audit.verify()).outstanding.records) >= 2


async def test_what_acknowledges_what_cannot_be_is_passed_over(place: Place) -> None:
    async with place.open(audit=options()) as km:
        forge(place)
        await auditing_of(km).trail.tell(AuditEvent(ACKNOWLEDGE, details={"record": "all of it", "reason": "none"}))
        await seal(km)
        report = await km.audit.verify()
        assert kinds(report) == {"inserted"}
        assert [warning for warning in report.log.warnings if "acknowledges what cannot be" in warning]


async def test_nothing_is_written_where_there_is_nothing_to_acknowledge(place: Place) -> None:
    async with place.open(audit=options()) as km:
        await seal(km)
        assert not await km.audit.acknowledge(await last_record(km), reason="looked into")
        assert place.waiting() == 0
        with pytest.raises(InvalidInputError, match="reason"):
            await km.audit.acknowledge(0, reason="")


async def test_many_that_were_acknowledged_are_counted(place: Place) -> None:
    async with place.open(audit=options()) as km:
        forge(place, 25)
        await seal(km)
        await km.audit.acknowledge(await last_record(km), reason="looked into")
        warnings = (await km.audit.verify()).log.warnings
        assert sum("(acknowledged)" in warning for warning in warnings) == 20
        assert "5 more were acknowledged" in warnings


def test_many_gaps_are_shared_out_among_entries() -> None:
    found = Outstanding(missing={"a": [[2 * at, 2 * at] for at in range(25_000)], "b": [[1, 3]]})
    events = list(found.events(7, "because"))
    told = [acknowledged(event.details) for event in events]
    assert [sum(map(len, gaps.values())) for _, gaps in filter(None, told)] == [10_000, 10_000, 5_001]
    assert {record for record, _ in filter(None, told)} == {7}


async def test_the_status_tells_what_nobody_has_acknowledged(place: Place) -> None:
    async with place.open(audit=options()) as km:
        await seal(km)
    place.execute("DELETE FROM audit_state")
    async with place.open(audit=options()) as km:
        forge(place, 3)
        await seal(km)
        status = await km.audit.status()
        assert (status.rejected, status.found) == (3, "altered")
        await km.audit.acknowledge(await last_record(km), reason="a test of ours")
        await seal(km)
        status = await km.audit.status()
        assert (status.rejected, status.found, status.found_in) == (0, None, None)
        forge(place, 2)
        await seal(km)
        assert (await km.audit.status()).rejected == 2


async def test_an_acknowledgement_that_says_nothing_leaves_the_status_as_it_was(place: Place) -> None:
    async with place.open(audit=options()) as km:
        forge(place)
        await seal(km)
        await auditing_of(km).trail.tell(AuditEvent(ACKNOWLEDGE, details={"record": "all of it", "reason": "none"}))
        await seal(km)
        place.execute("INSERT INTO audit_log (seq, line, action) VALUES (?, ?, ?)", 2**62, b"no line", ACKNOWLEDGE)
        assert (await km.audit.status()).rejected == 1
