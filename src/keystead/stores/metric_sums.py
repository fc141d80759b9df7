"""Sums over the numbers of a time: statements that are built once for all times that have as many rows of each length.

The start of row 2 of length 1 is the value ``row_1_2``; rows of a length begin with ``start_1``, and before ``end_1``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any, Final

from sqlalchemy import (
    BigInteger,
    BindParameter,
    ColumnElement,
    Float,
    Integer,
    Select,
    Subquery,
    Table,
    and_,
    bindparam,
    func,
    literal,
    not_,
    select,
    text,
    type_coerce,
    union_all,
)

from keystead.stores.metric_spans import Span
from keystead.stores.prepared import Prepared
from keystead.stores.tables import device_metric_counts, key_metric_counts, metric_counts

Shape = tuple[tuple[int, int], ...]
"""Of each length, how many seconds that is, and how many rows it has."""

_counts: Final = metric_counts
_keys: Final = key_metric_counts
_devices: Final = device_metric_counts
_REMEMBERED: Final = 64
_MARGIN: Final = 1.0
"""In hundredths of a decrypt: more than what rounding may add to any sum, so that no key is lost by it."""


def shape_of(within: Sequence[Span]) -> Shape:
    """Return what the statement for some rows goes by."""
    return tuple((span.seconds, len(span.starts)) for span in within)


def values_of(within: Sequence[Span]) -> dict[str, Any]:
    """Return the values by which it finds them."""
    values: dict[str, Any] = {}
    for number, span in enumerate(within):
        values |= {f"start_{number}": span.start, f"end_{number}": span.end}
        values |= {f"row_{number}_{row}": start for row, start in enumerate(span.starts)}
    return values


def operations(shape: Shape) -> Prepared:
    """Return what asks for the numbers of operations of a kind, a reason and a range of durations."""
    return _operations(_lengths(shape))


@lru_cache(_REMEMBERED)
def _operations(lengths: tuple[int, ...]) -> Prepared:
    each = _all_of(select(_counts), _counts, lengths)
    key = (each.c.operation, each.c.reason, each.c.bucket)
    sums = (func.sum(each.c.count), func.sum(each.c.total_us), func.max(each.c.longest_us))
    labels = ("count", "total_us", "longest_us")
    query = select(*key, *(each.label(label) for each, label in zip(sums, labels, strict=True)))
    return Prepared(query.group_by(*key))


@lru_cache(_REMEMBERED)
def busiest_devices(shape: Shape) -> Prepared:
    """Return what asks for the ``at_most`` devices with the most operations, and with each how many there are."""
    each = _all_of(select(_devices.c.device, _devices.c.count), _devices, _lengths(shape))
    count = func.sum(each.c.count).label("count")
    grouped = select(each.c.device, count, func.count().over().label("devices")).group_by(each.c.device)
    at_most = bindparam("at_most", type_=Integer)
    busiest = grouped.order_by(count.desc(), each.c.device).limit(at_most).cte().prefix_with("MATERIALIZED")

    def name(column: ColumnElement[str]) -> ColumnElement[str]:
        named = select(column).where(_devices.c.device == busiest.c.device).limit(1)
        found = (named.where(*_is_row(_devices, shape, number)).scalar_subquery() for number in range(len(shape)))
        return func.coalesce(*found, literal(None)).label(column.key)

    query = select(busiest, name(_devices.c.tenant), name(_devices.c.device_id))
    return Prepared(query.order_by(busiest.c.count.desc(), busiest.c.device))


@lru_cache(_REMEMBERED)
def failing_keys(shape: Shape) -> Prepared:
    """Return what asks for keys with ``at_least`` decrypts of which more than ``threshold_percent`` failed.

    Whatever fails too often in all does so in one row at least. Those rows are few and in an index of their own; the
    other rows of the keys in them are added a few at a time, each time as many as all before, and a key leaves when it
    has enough decrypts not to fail too often.
    """
    failing = select(_keys.c.key_id, _keys.c.total, _keys.c.failures).where(text("failures > 0"))
    each = _all_of(failing.where(_may_fail(_keys.c.total, _keys.c.failures)), _keys, _lengths(shape))
    total, failures = func.sum(each.c.total).label("total"), func.sum(each.c.failures).label("failures")
    found = select(each.c.key_id, total, failures).group_by(each.c.key_id)
    for number, rows in _steps(shape):
        known = found.cte().prefix_with("MATERIALIZED")
        found = _added(known, shape, number, rows)
    known = found.cte().prefix_with("MATERIALIZED")
    is_enough = known.c.total >= bindparam("at_least", type_=BigInteger)
    query = select(known).where(is_enough, _excess(known.c.total, known.c.failures) > 0)
    return Prepared(query.order_by(known.c.failures.desc(), known.c.key_id))


def _added(known: Any, shape: Shape, number: int, rows: Sequence[int]) -> Select[Any]:
    """Return the numbers of keys with those of some rows that are not among them, of keys that still may fail."""
    other = _keys.alias()
    is_other = (other.c.key_id == known.c.key_id, *_is_row(other, shape, number, rows))
    is_known = and_(other.c.failures > 0, _may_fail(other.c.total, other.c.failures))
    joined = known.outerjoin(other, and_(*is_other, not_(is_known)))
    is_one = len(rows) == 1

    def sum_of(name: str) -> ColumnElement[int]:
        more = other.c[name] if is_one else func.sum(other.c[name])
        return type_coerce(known.c[name] + func.coalesce(more, literal(0, BigInteger)), BigInteger)

    total, failures = sum_of("total"), sum_of("failures")
    query = select(known.c.key_id, total.label("total"), failures.label("failures")).select_from(joined)
    if is_one:
        return query.where(_may_fail(total, failures))
    return query.group_by(*known.c).having(_may_fail(total, failures))


def _steps(shape: Shape) -> Iterator[tuple[int, list[int]]]:
    """Return rows of one length at a time: one, then as many as all before.

    The longest come first, and of them the latest, but for the very last one: it has only begun.
    """
    seen = 0
    for number, (_, count) in reversed(list(enumerate(shape))):
        rows = list(reversed(range(count)))
        rows[:2] = reversed(rows[:2])
        while rows:
            size = max(seen, 1)
            yield number, rows[:size]
            seen += len(rows[:size])
            del rows[:size]


def _excess(total: ColumnElement[int], failures: ColumnElement[int]) -> ColumnElement[float]:
    """Return how many hundredths of a decrypt failed too often."""
    most = total * bindparam("threshold_percent", type_=Float)
    return type_coerce(failures * literal(100.0, Float) - most, Float)


def _may_fail(total: ColumnElement[int], failures: ColumnElement[int]) -> ColumnElement[bool]:
    return _excess(total, failures) > literal(-_MARGIN, Float)


def _all_of(query: Select[Any], table: Table, lengths: tuple[int, ...]) -> Subquery:
    """Return the rows of a time."""
    return union_all(
        *(
            query.where(
                table.c.seconds == seconds,
                table.c.start >= bindparam(f"start_{number}", type_=BigInteger),
                table.c.start < bindparam(f"end_{number}", type_=BigInteger),
            )
            for number, seconds in enumerate(lengths)
        )
    ).subquery()


def _lengths(shape: Shape) -> tuple[int, ...]:
    return tuple(seconds for seconds, _ in shape)


def _is_row(table: Any, shape: Shape, number: int, rows: Sequence[int] | None = None) -> list[ColumnElement[bool]]:
    """Return what holds for some of the rows of a length, or for all of them, looked up one by one."""
    seconds, count = shape[number]
    starts: list[BindParameter[int]] = [
        bindparam(f"row_{number}_{row}", type_=BigInteger) for row in (range(count) if rows is None else rows)
    ]
    return [table.c.seconds == seconds, table.c.start.in_(starts)]
