"""The newest files of a trail verified alone, and proofs of single records: neither reads more than a few files."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Final

import pytest

from keystead.errors import ConflictError, InvalidInputError, InvalidProofError
from keystead.ledger.audit import table_tree, verifying
from keystead.ledger.audit.actor import audit_actor
from keystead.ledger.audit.table_tree import TableTree
from keystead.ledger.tlog.proof import ProofBundle
from keystead.manager import audit_listing
from keystead.manager.audit_listing import newest_before
from keystead.model import utc_text
from keystead.ports import AuditFilter
from tests.audit.places import Place, kinds, options
from tests.audit.test_archive import days
from tests.fakes.clock import FakeClock

SOLD: Final = "UPDATE audit_log SET line = CAST(replace(CAST(line AS TEXT), 'order.paid', 'order.sold') AS BLOB)"


async def test_the_newest_files_are_verified_without_those_before(
    sqlite_place: Place, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = sqlite_place
    async with place.open(audit=options(), clock=clock, grace_s=None) as km:
        await days(km, clock, 3)
        begins = [seq for (seq,) in place.execute("SELECT seq FROM audit_log WHERE kind = 'file' ORDER BY seq")]
        assert len(begins) >= 4
        size = len(place.lines())
        assert (await km.audit.verify_newest()).log.first == 0
        monkeypatch.setattr(verifying, "MOST_AT_ONCE", size - begins[2])
        report = await km.audit.verify_newest()
        assert (report.valid, report.log.first, report.log.size) == (True, begins[2], size)
        assert report.log.records_checked == size - begins[2]
        assert report.log.vouched
        monkeypatch.setattr(verifying, "MOST_AT_ONCE", 0)
        assert (await km.audit.verify_newest()).log.first == begins[-1]
        monkeypatch.setattr(verifying, "MOST_AT_ONCE", size - begins[2])
        place.tamper(f"{SOLD} WHERE seq < {begins[2]}")
        assert (await km.audit.verify_newest()).valid
        place.tamper(f"{SOLD} WHERE seq > {begins[2]}")
        assert "modified" in kinds(await km.audit.verify_newest())
        km.audit._is_verifying = True
        with pytest.raises(ConflictError, match="ask again in a moment"):
            await km.audit.verify_newest()


async def test_a_record_of_any_file_is_proved_and_one_that_was_changed_is_not(
    sqlite_place: Place, clock: FakeClock
) -> None:
    place = sqlite_place
    async with place.open(audit=options(), clock=clock, grace_s=None) as km:
        await days(km, clock, 3)
        policy = await km.audit.trust_policy()
        keys, lines = [each.key for each in policy.signers], place.lines()
        for number, line in enumerate(lines[:-1]):
            proof = ProofBundle.parse((await km.audit.prove(number)).render())
            assert (proof.index, proof.extra) == (number, line)
            proof.verify(line, keys, origin=policy.stream)
        with pytest.raises(InvalidInputError, match="no checkpoint is over record"):
            await km.audit.prove(len(lines) - 1)
        with pytest.raises(InvalidInputError, match="has no record 100000"):
            await km.audit.prove(100_000)
        place.tamper(f"{SOLD} WHERE action = 'order.paid'")
        [paid] = place.execute("SELECT min(seq) FROM audit_log WHERE action = 'order.paid'")
        with pytest.raises(InvalidProofError):
            await km.audit.prove(paid[0])


async def test_who_searches_by_actor_looks_at_some_entries_only_and_is_led_on(
    sqlite_place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit_listing, "MOST_LOOKED", 4)
    async with sqlite_place.open(audit=True) as km:
        for number in range(6):
            with audit_actor("token 1, user ada" if number % 2 else "token 2, user bo"):
                await km.audit.record("order.paid", number=number)
        await km.audit.sequenced()
        everything = [each.seq for each in await km.audit.entries(limit=1000)]
        before, pages, found = None, 0, []
        while True:
            page = await newest_before(km, AuditFilter(), before=before, limit=50, actor="User ADA")
            pages, before = pages + 1, page.behind
            found += page.records
            if before is None:
                break
        assert [each.details["number"] for each in found] == [5, 3, 1]
        assert pages == -(-len(everything) // 4)
        nobody = await newest_before(km, AuditFilter(), before=None, limit=50, actor="nobody is called so")
        assert (nobody.records, nobody.behind) == ([], everything[-4])
        left = await newest_before(km, AuditFilter(), before=None, limit=50, leaves_out={"order.paid"})
        assert "order.paid" not in {each.action for each in left.records}


async def test_who_searches_by_several_things_is_led_on_as_well_and_finds_each_entry_once(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit_listing, "MOST_LOOKED", 4)
    async with place.open(audit=True) as km:
        for number in range(20):
            action = "order.paid" if number % 7 == 0 else "order.sent"
            await km.audit.record(action, keyring="orders" if number % 2 else "invoices", number=number)
        await km.audit.sequenced()

        async def found(where: AuditFilter, limit: int = 2) -> tuple[list[int], int]:
            before, pages, numbers = None, 0, list[int]()
            while True:
                page = await newest_before(km, where, before=before, limit=limit)
                pages, before = pages + 1, page.behind
                numbers += [each.details["number"] for each in page.records]
                assert len(page.records) <= limit
                if before is None:
                    return numbers, pages

        assert await found(AuditFilter("orders", "order.paid")) == ([7], 3)
        assert await found(AuditFilter("invoices", "order.paid"), 50) == ([14, 0], 3)
        assert await found(AuditFilter("invoices", "order.none")) == ([], 3)
        assert (await found(AuditFilter("orders"), 3))[0] == [*range(19, 0, -2)]
        late = utc_text(datetime.now(UTC) + timedelta(days=1))
        assert await found(AuditFilter("orders", since=late)) == ([], 3)
        assert (await found(AuditFilter("orders", "order.sent", until=late)))[0] == [19, 17, 15, 13, 11, 9, 5, 3, 1]


async def test_who_searches_by_time_alone_is_told_the_latest_first_and_each_entry_once(
    place: Place, clock: FakeClock
) -> None:
    async with place.open(audit=options(), clock=clock, grace_s=None) as km:
        begun = clock.now()
        for number in range(9):
            if number % 3 == 0:
                clock.advance(60)
            await km.audit.record("order.paid", number=number)
        await km.audit.sequenced()
        minute = timedelta(minutes=1)
        within = AuditFilter(since=utc_text(begun + 2 * minute), until=utc_text(begun + 3 * minute))
        everything = AuditFilter(since=utc_text(begun + minute))
        for where, numbers in ((within, [5, 4, 3]), (everything, [8, 7, 6, 5, 4, 3, 2, 1, 0])):
            for limit in (1, 2, 50):
                before, told = None, list[int]()
                while True:
                    page = await newest_before(km, where, before=before, limit=limit)
                    told += [each.details["number"] for each in page.records if each.action == "order.paid"]
                    if (before := page.behind) is None:
                        break
                assert told == numbers


async def test_a_proof_is_made_of_what_was_read_for_others_and_is_right_where_that_is_of_another_log(
    sqlite_place: Place, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(table_tree, "_LEVEL", 2)
    asked: list[int] = []
    read = TableTree._page

    async def counted(self: TableTree, start: int, end: int) -> list[bytes]:
        asked.append(start)
        return await read(self, start, end)

    monkeypatch.setattr(TableTree, "_page", counted)
    async with sqlite_place.open(audit=options(), clock=clock, grace_s=None) as km:
        for number in range(40):
            await km.audit.record("order.paid", number=number)
        await km.audit.checkpoint()
        first = (await km.audit.prove(20)).render()
        whole = len(asked)
        asked.clear()
        assert (await km.audit.prove(20)).render() == first
        assert 0 < len(asked) < whole / 2
        km.audit._subtrees |= dict.fromkeys(km.audit._subtrees, bytes(32))
        assert (await km.audit.prove(20)).render() == first
        assert bytes(32) not in km.audit._subtrees.values()
