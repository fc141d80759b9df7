"""A log is read a page ahead of the reader, whatever becomes of the reader."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from keystead.errors import CouldNotVerifyError, StorageOperationError
from keystead.ledger.audit import verifying
from keystead.ledger.reading.checking import StreamChecker
from keystead.ports import AuditLogRow
from keystead.stores.unit_of_work import SqlUnitOfWork
from tests.audit.places import Place, checked, options, seal


async def written(place: Place) -> int:
    """Return how many records there are."""
    async with place.open(audit=options()) as km:
        for number in range(20):
            await km.audit.record("order.paid", number=number)
        await seal(km)
    return len(place.lines())


@pytest.mark.parametrize("size", [1, 2, 7, 1000])
async def test_a_trail_of_many_pages_is_read_once_and_whole(
    place: Place, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    count = await written(place)
    read: list[int] = []
    real = SqlUnitOfWork.audit_records

    async def reading(work: SqlUnitOfWork, **how: Any) -> list[AuditLogRow]:
        if how.get("limit") == size and "where" not in how:
            read.append(how["after"])
        return await real(work, **how)

    monkeypatch.setattr(verifying, "PAGE", size)
    monkeypatch.setattr(SqlUnitOfWork, "audit_records", reading)
    report = await checked(place)
    assert report.valid
    assert report.log.records_checked >= count
    # Behind the last record it asks once more, and again.
    assert all(times == 1 for after, times in Counter(read).items() if after != max(read))


async def test_a_reader_that_stops_in_the_midst_leaves_no_read_under_way(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    await written(place)
    monkeypatch.setattr(verifying, "PAGE", 3)
    real = StreamChecker.check

    def stopping(checker: StreamChecker, files: Any, **how: Any) -> Any:
        next(iter(next(iter(files)).batches()))
        raise StorageOperationError("the disk fails")

    async with place.open(audit=options()) as km:
        monkeypatch.setattr(StreamChecker, "check", stopping)
        with pytest.raises(CouldNotVerifyError, match="the disk fails"):
            await km.audit.verify()
        monkeypatch.setattr(StreamChecker, "check", real)
        assert (await km.audit.verify()).valid
