"""Somebody with the database, and no key, lists a row of the log under the id of an entry that waits."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from keystead.ledger.audit.entries import sealed_payload
from keystead.ledger.audit.standing import FARTHEST
from tests.audit.places import Place, checked, kinds, options, seal

TOO_LARGE = 2**63 - 1


def garbage(entry: bytes, code: bytes, seq: int) -> bytes:
    return b"nothing at all"


def a_copy(entry: bytes, code: bytes, seq: int) -> bytes:
    return b'{"n":%d,"t":1,"d":%b,"mac":"%b"}' % (seq, sealed_payload(entry, code), b"A" * 43)


def take(place: Place, seq: int, line: Callable[[bytes, bytes, int], bytes]) -> None:
    """List a row under the id of the newest entry that waits."""
    [(key, entry, code)] = place.execute("SELECT id, entry, code FROM audit_entries ORDER BY id DESC LIMIT 1")
    planted = line(bytes(entry), bytes(code), seq)
    place.execute("INSERT INTO audit_log (seq, line, entry_id) VALUES (?, ?, ?)", seq, planted, key)


@pytest.mark.parametrize("line", [garbage, a_copy])
@pytest.mark.parametrize("beyond", [TOO_LARGE, FARTHEST * 2])
async def test_an_entry_whose_id_was_taken_is_sealed_all_the_same(
    place: Place, beyond: int, line: Callable[[bytes, bytes, int], bytes]
) -> None:
    async with place.open(audit=options()) as km:
        await seal(km)
        await km.audit.record("order.paid", number=1)
        take(place, beyond, line)
        await seal(km)
        assert place.waiting() == 0
        assert [each.details["number"] for each in await km.audit.entries(action="order.paid")] == [1]
        assert list(await km.audit.entries(action="audit.rejected")) == []
        assert (await km.audit.verify()).valid is False


async def test_that_an_id_was_taken_is_found_when_the_row_has_gone_until_it_is_acknowledged(place: Place) -> None:
    async with place.open(audit=options()) as km:
        await seal(km)
        await km.audit.record("order.paid", number=1)
        take(place, TOO_LARGE, garbage)
        await seal(km)
        place.tamper(f"DELETE FROM audit_log WHERE seq = {TOO_LARGE}")
        report = await km.audit.verify()
        assert (kinds(report), len(report.outstanding.records)) == ({"modified"}, 1)
        await km.audit.acknowledge(report.log.size - 1, reason="somebody was in the database")
        await seal(km)
    assert (await checked(place)).valid


async def test_an_id_that_was_put_on_a_record_of_the_log_keeps_no_entry_out(place: Place) -> None:
    async with place.open(audit=options()) as km:
        await km.audit.record("order.paid", number=1)
        await seal(km)
        await km.audit.record("order.paid", number=2)
        [(key,)] = place.execute("SELECT id FROM audit_entries ORDER BY id DESC LIMIT 1")
        [(seq,)] = place.execute("SELECT seq FROM audit_log WHERE action = 'order.paid'")
        place.tamper()
        place.execute("UPDATE audit_log SET entry_id = ? WHERE seq = ?", key, seq)
        await seal(km)
        assert [each.details["number"] for each in await km.audit.entries(action="order.paid")] == [1, 2]
        assert "modified" in kinds(await km.audit.verify())
