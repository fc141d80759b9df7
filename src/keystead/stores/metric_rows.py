"""Operations with key pairs of devices, and their numbers, as rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime
from hashlib import sha256
from itertools import product
from typing import Any, Final

from sqlalchemy import (
    ColumnElement,
    Insert,
    Integer,
    Table,
    and_,
    case,
    delete,
    func,
    or_,
    select,
    tuple_,
)

from keystead.ports import DeviceCount, HourCount, KeyCount, KeyFailureCount, MetricCount, MetricRecord
from keystead.stores import metric_sums
from keystead.stores.many import AnyInsert, InsertMany
from keystead.stores.metric_spans import HOUR, MINUTE, OF_KEYS, OF_OPERATIONS, spans, start_of
from keystead.stores.prepared import Row
from keystead.stores.tables import (
    device_metric_counts,
    encryption_metrics,
    key_failure_counts,
    key_metric_counts,
    metric_counts,
)
from keystead.stores.transaction import Statements

_raw: Final = encryption_metrics
_counts: Final = metric_counts
_keys: Final = key_metric_counts
_failures: Final = key_failure_counts
_devices: Final = device_metric_counts
_ASKED_AT_ONCE: Final = 1000


class MetricRows(Statements):
    """Operations and their numbers; ``keystead.ports.MetricRows``."""

    async def add_metrics(self, metrics: Sequence[MetricRecord]) -> bool:
        """Insert operations, and count them; False if they were added already, going by the id of the first."""
        rows = [_row(metric) for metric in metrics]
        first = self._insert(_raw).values(rows[0]).on_conflict_do_nothing()
        if await self._write(first.returning(_raw.c.id)) is None:
            return False
        await self._run_many(_INSERT, rows[1:])
        await self._add_up(_failures, _failure_counts(metrics))
        await self._add_up(_keys, _key_counts(metrics))
        await self._add_up(_devices, _device_counts(metrics))
        # Every node adds to these: they are held for the shortest time.
        await self._add_up(_counts, _operation_counts(metrics))
        return True

    async def metric_counts(self, since: datetime, until: datetime) -> list[MetricCount]:
        """Return the numbers of operations; ``since`` may also be a whole minute."""
        rows = await self._sums(metric_sums.operations(spans(since, until, OF_OPERATIONS)))
        return [MetricCount(**row | {"count": int(row["count"]), "total_us": int(row["total_us"])}) for row in rows]

    async def hour_counts(self, since: datetime, until: datetime) -> list[HourCount]:
        """Return the numbers of each hour that has some, the earliest first."""
        failed = func.sum(case((_counts.c.reason == "", 0), else_=_counts.c.count))
        query = select(_counts.c.start, func.sum(_counts.c.count), failed).where(
            _counts.c.seconds == HOUR,
            _counts.c.start >= start_of(since, HOUR),
            _counts.c.start <= start_of(until, HOUR),
        )
        found = await self._tuples(query.group_by(_counts.c.start).order_by(_counts.c.start))
        return [
            HourCount(datetime.fromtimestamp(start, UTC), int(total), int(failures)) for start, total, failures in found
        ]

    async def failing_keys(
        self, since: datetime, until: datetime, *, threshold_percent: float, at_least: int
    ) -> list[KeyCount]:
        """Return keys of which more than so many percent of ``at_least`` decrypts failed, most failures first."""
        within = spans(since, until, OF_KEYS)
        asked = metric_sums.failing_keys(within, threshold_percent=float(threshold_percent), at_least=at_least)
        rows = await self._sums(asked)
        return [KeyCount(row["key_id"], int(row["total"]), int(row["failures"])) for row in rows]

    async def key_failures(self, key_ids: Collection[str], since: datetime) -> list[KeyFailureCount]:
        """Return why decrypts of keys failed, of each the commonest reason first."""
        count = func.sum(_failures.c.count)
        query = select(_failures.c.key_id, _failures.c.reason, count).where(_failures.c.start >= start_of(since, HOUR))
        query = query.group_by(_failures.c.key_id, _failures.c.reason)
        query = query.order_by(_failures.c.key_id, count.desc(), _failures.c.reason)
        asked, found = list(key_ids), []
        for at in range(0, len(asked), _ASKED_AT_ONCE):
            some = _failures.c.key_id.in_(asked[at : at + _ASKED_AT_ONCE])
            found += [
                KeyFailureCount(key, why, int(number)) for key, why, number in await self._tuples(query.where(some))
            ]
        return found

    async def busiest_devices(self, since: datetime, until: datetime, *, limit: int) -> tuple[int, list[DeviceCount]]:
        """Return how many devices there were, and those with the most operations."""
        rows = await self._sums(metric_sums.busiest_devices(spans(since, until, OF_KEYS), at_most=limit))
        busiest = [DeviceCount(row["tenant"], row["device_id"], int(row["count"])) for row in rows]
        return (rows[0]["devices"] if rows else 0), busiest

    async def drop_metrics(self, before: datetime, *, limit: int) -> int:
        """Remove operations from before a time; return how many, ``limit`` at most."""
        return await self._drop(_raw, _raw.c.timestamp < before, limit)

    async def drop_minute_counts(self, before: datetime, *, limit: int) -> int:
        """Remove numbers by the minute that end before a time; return how many rows, ``limit`` at most."""
        return await self._drop(_counts, _ended(_counts, [MINUTE], before), limit)

    async def drop_hour_counts(self, before: datetime, *, limit: int) -> int:
        """Remove numbers by longer times that end before one; return how many rows, ``limit`` at most."""
        return await self._drop(_counts, _ended(_counts, OF_OPERATIONS[1:], before), limit)

    async def drop_key_counts(self, before: datetime, *, limit: int) -> int:
        """Remove numbers of keys and devices that end before a time; return how many, ``limit`` a table at most."""
        failed = await self._drop(_failures, _failures.c.start < start_of(before, HOUR), limit)
        of_keys = await self._drop(_keys, _ended(_keys, OF_KEYS, before), limit)
        return failed + of_keys + await self._drop(_devices, _ended(_devices, OF_KEYS, before), limit)

    async def _sums(self, asked: metric_sums.Asked) -> list[Row]:
        prepared, values = asked
        return await self._run(prepared, values, writes=False)

    async def _add_up(self, table: Table, counts: Mapping[tuple[Any, ...], tuple[int, ...]]) -> None:
        """Add numbers to rows, by their keys: two who do so do not wait for each other in a circle."""
        names = [column.name for column in table.columns]
        rows = [dict(zip(names, (*of, *counts[of]), strict=True)) for of in sorted(counts)]
        await self._run_many(_ADD_UP[table.name], rows)

    async def _drop(self, table: Table, due: ColumnElement[bool], limit: int) -> int:
        key = list(table.primary_key)
        return await self._count(delete(table).where(tuple_(*key).in_(select(*key).where(due).limit(limit))))


def _adding_up(table: Table) -> InsertMany:
    def finish(insert: AnyInsert) -> Insert:
        key = list(table.primary_key)
        summed = {
            column.name: _larger(column, new) if column is _counts.c.longest_us else column + new
            for column, new in zip(table.columns, insert.excluded, strict=True)
            if column not in key and isinstance(column.type, Integer)
        }
        return insert.on_conflict_do_update(index_elements=key, set_=summed)

    return InsertMany(table, finish)


def _row(metric: MetricRecord) -> dict[str, Any]:
    """Return the documented row of an operation."""
    return {
        "id": metric.id,
        "key_id": metric.key_id,
        "device_id": metric.device_id,
        "operation": metric.operation,
        "status": "failure" if metric.reason else "success",
        "error_reason": metric.reason or None,
        "duration": round(metric.duration_us / 1000),
        "timestamp": metric.at,
    }


def _operation_counts(metrics: Sequence[MetricRecord]) -> dict[tuple[Any, ...], tuple[int, ...]]:
    counts: dict[tuple[Any, ...], tuple[int, ...]] = {}
    for metric, seconds in product(metrics, OF_OPERATIONS):
        key = (seconds, start_of(metric.at, seconds), metric.operation, metric.reason, metric.bucket)
        count, total_us, longest_us = counts.get(key, (0, 0, 0))
        counts[key] = (count + 1, total_us + metric.duration_us, max(longest_us, metric.duration_us))
    return counts


def _key_counts(metrics: Sequence[MetricRecord]) -> dict[tuple[Any, ...], tuple[int, ...]]:
    counts: dict[tuple[Any, ...], tuple[int, ...]] = {}
    for metric, seconds in product(metrics, OF_KEYS):
        if metric.counted_key is not None:
            key = (seconds, start_of(metric.at, seconds), metric.counted_key)
            total, failures = counts.get(key, (0, 0))
            counts[key] = (total + 1, failures + bool(metric.reason))
    return counts


def _failure_counts(metrics: Sequence[MetricRecord]) -> dict[tuple[Any, ...], tuple[int, ...]]:
    failed = (metric for metric in metrics if metric.counted_key is not None and metric.reason)
    counts = Counter((metric.counted_key, start_of(metric.at, HOUR), metric.reason) for metric in failed)
    return {key: (count,) for key, count in counts.items()}


def _device_counts(metrics: Sequence[MetricRecord]) -> dict[tuple[Any, ...], tuple[int, ...]]:
    counts: Counter[tuple[Any, ...]] = Counter()
    for metric in metrics:
        if metric.counted_device is not None:
            device = _number_of(metric.tenant, metric.counted_device)
            for seconds in OF_KEYS:
                start = start_of(metric.at, seconds)
                counts[seconds, start, device, metric.tenant, metric.counted_device] += 1
    return {key: (count,) for key, count in counts.items()}


def _number_of(tenant: str, device_id: str) -> int:
    return int.from_bytes(sha256(f"{tenant}\x00{device_id}".encode()).digest()[:8], "big") >> 1


def _ended(table: Table, lengths: Sequence[int], before: datetime) -> ColumnElement[bool]:
    """Return which rows end before a time, or with it."""
    end = int(before.timestamp())
    return or_(*(and_(table.c.seconds == seconds, table.c.start <= end - seconds) for seconds in lengths))


def _larger(column: ColumnElement[int], other: ColumnElement[int]) -> ColumnElement[int]:
    return case((other > column, other), else_=column)


_INSERT: Final = InsertMany(_raw)
_ADD_UP: Final = {table.name: _adding_up(table) for table in (_failures, _keys, _devices, _counts)}
