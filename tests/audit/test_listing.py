"""Entries as a person looks through them: every one once, whatever the pages they are read by."""

from __future__ import annotations

import pytest

from keystead.errors import ConfigurationError
from keystead.manager.audit_listing import BOOKKEEPING, listed, records_in
from keystead.manager.audit_status import seen_status
from keystead.ports import AuditFilter
from tests.audit.places import Place


@pytest.mark.parametrize("newest_first", [False, True])
@pytest.mark.parametrize("page", [1, 2, 3, 1000])
async def test_every_entry_is_read_once_whatever_the_page(sqlite_place: Place, page: int, newest_first: bool) -> None:
    async with sqlite_place.open(audit=True) as km:
        for number in range(3):
            await km.audit.record("order.paid", number=number)
        await km.audit.sequenced()
        expected = [each.seq for each in await km.audit.entries(limit=1000)]
        async with km._store.reading() as work:
            found = [each.seq async for each in records_in(work, AuditFilter(), newest_first=newest_first, page=page)]
            assert found == (expected[::-1] if newest_first else expected)
            bounded = records_in(
                work, AuditFilter(), after=expected[0], before=expected[-1], newest_first=newest_first, page=page
            )
            assert sorted([each.seq async for each in bounded]) == expected[1:-1]
        assert [each.seq for each in await km.audit.entries(limit=2)] == expected[:2]
        assert await km.audit.entries(limit=0) == []


async def test_who_lists_needs_no_start_and_leaves_no_entry(place: Place) -> None:
    async with place.open(audit=True) as km:
        await km.audit.record("order.paid", number=1)
    looking = place.manager()
    before = await seen_status(looking)
    found = await listed(looking, AuditFilter(), limit=2, leaves_out=BOOKKEEPING)
    assert not looking.is_initialized
    assert found.records[-1].action == "order.paid"
    assert (len(found.records), found.is_cut) == (2, True)
    everything = await listed(looking, AuditFilter(), limit=1000)
    assert (everything.left_out, everything.is_cut) == (0, False)
    assert {each.action for each in everything.records} > BOOKKEEPING - {"audit.checkpoint"}
    assert (before.is_on, before.waiting, before.is_sealing) == (True, 0, False)
    assert (await seen_status(looking)).records == before.records
    await looking.close()


async def test_a_store_that_never_had_a_trail_has_nothing_to_list(place: Place) -> None:
    looking = place.manager()
    with pytest.raises(ConfigurationError, match="keystead audit begin"):
        await listed(looking, AuditFilter(), limit=1)
    assert not (await seen_status(looking)).is_on
    await looking.close()
