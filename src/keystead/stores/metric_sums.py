"""Sums over the numbers of a time: statements that are built once for all times that have rows of the same lengths.

Rows of length 1 begin with the value ``start_1``, and before ``end_1``; ``rows_1`` are all of their starts.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any, Final

from sqlalchemy import (
    ARRAY,
    BigInteger,
    ColumnElement,
    Dialect,
    Float,
    Integer,
    Select,
    String,
    Subquery,
    Table,
    TypeDecorator,
    and_,
    any_,
    bindparam,
    func,
    literal,
    not_,
    select,
    text,
    type_coerce,
    union_all,
)
from sqlalchemy.types import TypeEngine

from keystead.stores.metric_spans import Span
from keystead.stores.prepared import Prepared
from keystead.stores.tables import device_metric_counts, key_metric_counts, metric_counts

Asked = tuple[Prepared, dict[str, Any]]
"""A statement, and the values by which it finds the rows of a time."""
Steps = tuple[tuple[int, bool], ...]
"""The number of the length of each step's rows, and whether it is one row."""

_counts: Final = metric_counts
_keys: Final = key_metric_counts
_devices: Final = device_metric_counts
_REMEMBERED: Final = 64
_MARGIN: Final = 1.0
"""In hundredths of a decrypt: more than what rounding may add to any sum, so that no key is lost by it."""


class _Numbers(TypeDecorator[list[int]]):
    """Numbers as one value: a list, or JSON where the database has no lists."""

    impl = ARRAY(BigInteger)
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        """Return what a database keeps them as."""
        return dialect.type_descriptor(ARRAY(BigInteger) if dialect.name == "postgresql" else String())

    def process_bind_param(self, value: list[int] | None, dialect: Dialect) -> Any:
        """Return them so."""
        return value if dialect.name == "postgresql" else json.dumps(value)


def operations(within: Sequence[Span]) -> Asked:
    """Return what asks for the numbers of operations of a kind, a reason and a range of durations."""
    return _operations(_lengths(within)), _values(within)


@lru_cache(_REMEMBERED)
def _operations(lengths: tuple[int, ...]) -> Prepared:
    each = _all_of(select(_counts), _counts, lengths)
    key = (each.c.operation, each.c.reason, each.c.bucket)
    sums = (func.sum(each.c.count), func.sum(each.c.total_us), func.max(each.c.longest_us))
    labels = ("count", "total_us", "longest_us")
    query = select(*key, *(each.label(label) for each, label in zip(sums, labels, strict=True)))
    return Prepared(query.group_by(*key))


def busiest_devices(within: Sequence[Span], *, at_most: int) -> Asked:
    """Return what asks for the devices with the most operations, and with each how many there are."""
    rows = {f"rows_{number}": list(span.starts) for number, span in enumerate(within)}
    return _busiest_devices(_lengths(within)), _values(within) | rows | {"at_most": at_most}


@lru_cache(_REMEMBERED)
def _busiest_devices(lengths: tuple[int, ...]) -> Prepared:
    def query(dialect: str) -> Select[Any]:
        each = _all_of(select(_devices.c.device, _devices.c.count), _devices, lengths)
        count = func.sum(each.c.count).label("count")
        grouped = select(each.c.device, count, func.count().over().label("devices")).group_by(each.c.device)
        at_most = bindparam("at_most", type_=Integer)
        busiest = grouped.order_by(count.desc(), each.c.device).limit(at_most).cte().prefix_with("MATERIALIZED")

        def name(column: ColumnElement[str]) -> ColumnElement[str]:
            named = select(column).where(_devices.c.device == busiest.c.device).limit(1)
            found = (
                named.where(_devices.c.seconds == seconds, _among(_devices.c.start, f"rows_{number}", dialect))
                for number, seconds in enumerate(lengths)
            )
            names = (each.scalar_subquery() for each in found)
            return func.coalesce(*names, literal(None)).label(column.key)

        told: Select[Any] = select(busiest, name(_devices.c.tenant), name(_devices.c.device_id))
        return told.order_by(busiest.c.count.desc(), busiest.c.device)

    return Prepared(query)


def failing_keys(within: Sequence[Span], *, threshold_percent: float, at_least: int) -> Asked:
    """Return what asks for keys with ``at_least`` decrypts of which more than ``threshold_percent`` failed.

    Whatever fails too often in all does so in one row at least. Those rows are few and in an index of their own; the
    other rows of the keys in them are added a few at a time, each time as many as all before, and a key leaves when it
    has enough decrypts not to fail too often.
    """
    steps = list(_steps(within))
    rows = {f"step_{at}": starts[0] if len(starts) == 1 else starts for at, (_, starts) in enumerate(steps)}
    asked = {"threshold_percent": threshold_percent, "at_least": at_least}
    prepared = _failing_keys(_lengths(within), tuple((number, len(starts) == 1) for number, starts in steps))
    return prepared, _values(within) | rows | asked


@lru_cache(_REMEMBERED)
def _failing_keys(lengths: tuple[int, ...], steps: Steps) -> Prepared:
    def query(dialect: str) -> Select[Any]:
        failing = select(_keys.c.key_id, _keys.c.total, _keys.c.failures).where(text("failures > 0"))
        each = _all_of(failing.where(_may_fail(_keys.c.total, _keys.c.failures)), _keys, lengths)
        total, failures = func.sum(each.c.total).label("total"), func.sum(each.c.failures).label("failures")
        found = select(each.c.key_id, total, failures).group_by(each.c.key_id)
        for at, (number, is_one) in enumerate(steps):
            known = found.cte().prefix_with("MATERIALIZED")
            found = _added(known, lengths[number], f"step_{at}", is_one=is_one, dialect=dialect)
        known = found.cte().prefix_with("MATERIALIZED")
        is_enough = known.c.total >= bindparam("at_least", type_=BigInteger)
        told: Select[Any] = select(known).where(is_enough, _excess(known.c.total, known.c.failures) > 0)
        return told.order_by(known.c.failures.desc(), known.c.key_id)

    return Prepared(query)


def _added(known: Any, seconds: int, rows: str, *, is_one: bool, dialect: str) -> Select[Any]:
    """Return the numbers of keys with those of some rows that are not among them, of keys that still may fail."""
    other = _keys.alias()
    start = other.c.start
    is_there = start == bindparam(rows, type_=BigInteger) if is_one else _among(start, rows, dialect)
    is_other = (other.c.key_id == known.c.key_id, other.c.seconds == seconds, is_there)
    is_known = and_(other.c.failures > 0, _may_fail(other.c.total, other.c.failures))
    joined = known.outerjoin(other, and_(*is_other, not_(is_known)))

    def sum_of(name: str) -> ColumnElement[int]:
        more = other.c[name] if is_one else func.sum(other.c[name])
        return type_coerce(known.c[name] + func.coalesce(more, literal(0, BigInteger)), BigInteger)

    total, failures = sum_of("total"), sum_of("failures")
    query = select(known.c.key_id, total.label("total"), failures.label("failures")).select_from(joined)
    if is_one:
        return query.where(_may_fail(total, failures))
    return query.group_by(*known.c).having(_may_fail(total, failures))


def _steps(within: Sequence[Span]) -> Iterator[tuple[int, list[int]]]:
    """Return rows of one length at a time, by its number and their starts: one, then as many as all before.

    The longest come first, and of them the latest, but for the very last one: it has only begun.
    """
    seen = 0
    for number, span in reversed(list(enumerate(within))):
        rows = list(reversed(span.starts))
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


def _lengths(within: Sequence[Span]) -> tuple[int, ...]:
    return tuple(span.seconds for span in within)


def _values(within: Sequence[Span]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for number, span in enumerate(within):
        values |= {f"start_{number}": span.start, f"end_{number}": span.end}
    return values


def _among(column: ColumnElement[int], name: str, dialect: str) -> ColumnElement[bool]:
    """Return whether a column is one of the numbers that a value has, which are looked up one by one."""
    given = bindparam(name, type_=_Numbers())
    if dialect == "postgresql":
        return column == any_(given)
    return column.in_(select(func.json_each(given).table_valued("value").c.value))
