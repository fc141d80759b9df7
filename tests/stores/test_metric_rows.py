"""Operations with key pairs: kept once, counted exactly, and told from a few rows as if each had been read."""

from __future__ import annotations

import asyncio
import hashlib
import random
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import Table, select

from keystead.ports import DeviceCount, HourCount, KeyCount, KeyFailureCount, KeyStore, MetricCount, MetricRecord
from keystead.stores.metric_spans import OF_KEYS, OF_OPERATIONS, spans
from keystead.stores.tables import (
    device_metric_counts,
    encryption_metrics,
    key_failure_counts,
    key_metric_counts,
    metric_counts,
)

NOW = datetime(2030, 1, 1, 12, 34, 56, tzinfo=UTC)
HOUR, MINUTE, DAY = timedelta(hours=1), timedelta(minutes=1), timedelta(days=1)
COUNTED = (metric_counts, key_metric_counts, key_failure_counts, device_metric_counts)
ONE = MetricRecord("0" * 32, "decrypt", "", 1500, 42, NOW, "key_1", "phone", "key_1", "phone")
PHONE = int.from_bytes(hashlib.sha256(b"\x00phone").digest()[:8], "big") >> 1
BAD = replace(ONE, reason="Failed to decrypt data")


def several(*metrics: MetricRecord, seed: int = 0) -> list[MetricRecord]:
    """Return metrics, each with an id of its own."""
    return [replace(metric, id=f"{seed:08x}{number:024x}") for number, metric in enumerate(metrics)]


async def add(store: KeyStore, metrics: list[MetricRecord]) -> bool:
    async with store.transaction() as work:
        return await work.add_metrics(metrics)


async def rows(store: KeyStore, table: Table) -> list[dict[str, Any]]:
    async with store.reading() as work:
        return [{**row} for row in await work._all(select(table))]  # type: ignore[attr-defined]


def hour(moment: datetime) -> datetime:
    return moment.replace(minute=0, second=0, microsecond=0)


async def test_an_operation_is_kept_as_it_is_documented(store: KeyStore) -> None:
    bare = replace(BAD, id="1" * 32, key_id=None, device_id=None, duration_us=2_499_600)
    assert await add(store, [ONE, bare])
    good, bad = sorted(await rows(store, encryption_metrics), key=lambda row: str(row["id"]))
    assert good == {
        "id": "0" * 32,
        "key_id": "key_1",
        "device_id": "phone",
        "operation": "decrypt",
        "status": "success",
        "error_reason": None,
        "duration": 2,
        "timestamp": NOW,
    }
    told = ("failure", "Failed to decrypt data", 2500, None, None)
    assert tuple(bad[name] for name in ("status", "error_reason", "duration", "key_id", "device_id")) == told


async def test_what_was_added_already_is_not_counted_again(store: KeyStore) -> None:
    batch = several(ONE, BAD, ONE)
    assert await add(store, batch)
    before = [await rows(store, table) for table in COUNTED]
    assert not await add(store, batch)
    assert [await rows(store, table) for table in COUNTED] == before
    assert len(await rows(store, encryption_metrics)) == 3


async def test_an_operation_is_counted_once_in_a_row_of_each_length(store: KeyStore) -> None:
    await add(store, several(ONE, replace(BAD, duration_us=500), ONE, replace(ONE, duration_us=2000)))
    at = {60: NOW.replace(second=0), 3600: hour(NOW), 10_800: hour(NOW), 43_200: hour(NOW)}
    starts = {seconds: int(start.timestamp()) for seconds, start in at.items()}
    counted = {(row["seconds"], row["start"], row["reason"]): row for row in await rows(store, metric_counts)}
    assert len(counted) == 2 * len(OF_OPERATIONS)
    for seconds in OF_OPERATIONS:
        row = counted[seconds, starts[seconds], ""]
        assert (row["count"], row["total_us"], row["longest_us"]) == (3, 5000, 2000)
    assert [tuple(row.values()) for row in await rows(store, key_metric_counts)] == [
        (seconds, starts[seconds], "key_1", 4, 1) for seconds in OF_KEYS
    ]
    assert [tuple(row.values()) for row in await rows(store, device_metric_counts)] == [
        (seconds, starts[seconds], PHONE, "", "phone", 4) for seconds in OF_KEYS
    ]
    assert [tuple(row.values()) for row in await rows(store, key_failure_counts)] == [
        ("key_1", starts[3600], BAD.reason, 1)
    ]


async def test_the_longest_stays_the_longest(store: KeyStore) -> None:
    for seed, duration_us in enumerate((20, 30, 10)):
        await add(store, several(replace(ONE, duration_us=duration_us), seed=seed))
    async with store.reading() as work:
        assert await work.metric_counts(hour(NOW), NOW) == [MetricCount("decrypt", "", 42, 3, 60, 30)]


async def test_what_is_counted_under_no_key_and_no_device_is_counted_all_the_same(store: KeyStore) -> None:
    await add(store, several(replace(BAD, counted_key=None, counted_device=None)))
    async with store.reading() as work:
        assert [each.count for each in await work.metric_counts(hour(NOW), NOW)] == [1]
        assert await work.failing_keys(hour(NOW), NOW, threshold_percent=0, at_least=1) == []
        assert await work.key_failures(["key_1"], hour(NOW)) == []
        assert await work.busiest_devices(hour(NOW), NOW, limit=9) == (0, [])


async def test_many_who_add_at_once_to_the_same_rows_add_up(store: KeyStore) -> None:
    kinds = [replace(BAD, counted_key=f"key_{number}", counted_device=f"d{number}") for number in range(20)]

    async def node(seed: int) -> None:
        mixed = random.Random(seed).sample(kinds, len(kinds))
        for turn in range(3):
            assert await add(store, several(*mixed, seed=100 * seed + turn))

    await asyncio.gather(*(node(seed) for seed in range(6)))
    async with store.reading() as work:
        failing = await work.failing_keys(hour(NOW), NOW, threshold_percent=50, at_least=1)
        assert {(key.total, key.failures) for key in failing} == {(18, 18)}
        assert sum(each.count for each in await work.metric_counts(hour(NOW), NOW)) == 18 * 20


async def test_a_key_is_told_for_more_than_the_threshold_of_enough_decrypts(store: KeyStore) -> None:
    decrypts = {"a": (3, 2), "b": (2, 2), "c": (9, 1), "d": (8, 1), "e": (90, 10), "f": (5, 0)}
    for seed, (key, (good, bad)) in enumerate(decrypts.items()):
        metrics = several(*[ONE] * good, *[BAD] * bad, seed=seed)
        await add(store, [replace(metric, counted_key=key) for metric in metrics])
    async with store.reading() as work:
        found = await work.failing_keys(hour(NOW), NOW, threshold_percent=10, at_least=5)
    assert found == [KeyCount("a", 5, 2), KeyCount("d", 9, 1)]


async def test_reasons_are_told_by_key_the_commonest_first_however_many_keys_there_are(store: KeyStore) -> None:
    other = replace(BAD, reason="Encryption key has expired")
    before = [replace(other, at=NOW - HOUR) for _ in range(9)]
    await add(store, several(BAD, other, BAD, *before, replace(other, counted_key="key_2")))
    async with store.reading() as work:
        assert await work.key_failures([], hour(NOW)) == []
        found = await work.key_failures(["key_1", *map(str, range(2000)), "key_2"], hour(NOW))
    assert found == [
        KeyFailureCount("key_1", BAD.reason, 2),
        KeyFailureCount("key_1", other.reason, 1),
        KeyFailureCount("key_2", other.reason, 1),
    ]


@pytest.mark.parametrize("seed", range(3))
async def test_numbers_are_those_of_the_operations_of_the_time(store: KeyStore, seed: int) -> None:
    chance = random.Random(seed)
    metrics = []
    for number in range(1500):
        key = f"key_{chance.randrange(30)}"
        device = f"device_{int(key[4:]) // 3}"
        reason = chance.choice(["a", "b"]) if chance.random() < 0.1 else ""
        at = NOW - chance.random() * 4 * DAY
        record = MetricRecord(f"{number:032}", "decrypt", reason, chance.randrange(10**6), 7, at)
        metrics.append(replace(record, counted_key=key, counted_device=device, tenant=chance.choice("nm")))
    for begin in range(0, 1500, 500):
        await add(store, metrics[begin : begin + 500])
    # Twice: what asks the first time is not what asks from then on.
    for hours in 2 * (*range(1, 7), 9, 13, 24, 30, 96):
        since = hour(NOW - hours * HOUR)
        within = [metric for metric in metrics if metric.at >= since]
        async with store.reading() as work:
            counts = await work.metric_counts(since, NOW)
            finer = await work.metric_counts(since + 7 * MINUTE, NOW)
            failing = {
                percent: await work.failing_keys(since, NOW, threshold_percent=percent, at_least=at_least)
                for percent, at_least in ((0, 1), (12.5, 5), (100 / 3, 2), (100, 1))
            }
            distinct, busiest = await work.busiest_devices(since, NOW, limit=1000)
            first = await work.busiest_devices(since, NOW, limit=3)
        assert {each.reason: (each.count, each.total_us, each.longest_us) for each in counts} == by_reason(within)
        late = [metric for metric in within if metric.at >= since + 7 * MINUTE]
        assert sum(each.count for each in finer) == len(late)
        for (percent, found), at_least in zip(failing.items(), (1, 5, 2, 1), strict=True):
            assert found == too_often(within, percent, at_least)
        used = Counter((m.tenant, str(m.counted_device)) for m in within)
        assert distinct == len(used)
        assert {(each.tenant, each.device_id): each.count for each in busiest} == used
        assert first == (distinct, busiest[:3])
        assert [each.count for each in busiest] == sorted(used.values(), reverse=True)


def too_often(metrics: list[MetricRecord], percent: float, at_least: int) -> list[KeyCount]:
    totals = Counter(str(metric.counted_key) for metric in metrics)
    failures = Counter(str(metric.counted_key) for metric in metrics if metric.reason)
    told = [key for key in totals if totals[key] >= at_least and failures[key] * 100 > totals[key] * percent]
    return [KeyCount(key, totals[key], failures[key]) for key in sorted(told, key=lambda key: (-failures[key], key))]


def by_reason(metrics: list[MetricRecord]) -> dict[str, tuple[int, int, int]]:
    times: dict[str, list[int]] = {}
    for metric in metrics:
        times.setdefault(metric.reason, []).append(metric.duration_us)
    return {reason: (len(each), sum(each), max(each)) for reason, each in times.items()}


async def test_devices_of_two_tenants_are_two(store: KeyStore) -> None:
    await add(store, several(ONE, replace(ONE, tenant="north"), ONE))
    async with store.reading() as work:
        found = await work.busiest_devices(hour(NOW), NOW, limit=9)
    assert found == (2, [DeviceCount("", "phone", 2), DeviceCount("north", "phone", 1)])


async def test_operations_go_by_age_and_by_as_many_as_are_asked_for(store: KeyStore) -> None:
    await add(store, several(*(replace(ONE, at=NOW - number * HOUR) for number in range(6))))
    async with store.transaction() as work:
        assert await work.drop_metrics(NOW - HOUR, limit=3) == 3
        assert await work.drop_metrics(NOW - HOUR, limit=3) == 1
        assert await work.drop_metrics(NOW - HOUR, limit=3) == 0
    assert sorted(row["timestamp"] for row in await rows(store, encryption_metrics)) == [NOW - HOUR, NOW]


async def test_numbers_go_when_their_time_is_over_the_longer_ones_later(store: KeyStore) -> None:
    await add(store, several(BAD))
    start, noon = NOW.replace(second=0), NOW.replace(hour=12, minute=0, second=0)
    async with store.transaction() as work:
        assert await work.drop_minute_counts(start + MINUTE - timedelta(seconds=1), limit=9) == 0
        assert await work.drop_minute_counts(start + MINUTE, limit=9) == 1
        assert await work.drop_hour_counts(noon + HOUR - timedelta(seconds=1), limit=9) == 0
        assert await work.drop_hour_counts(noon + HOUR, limit=9) == 1
        assert await work.drop_key_counts(noon + HOUR - timedelta(seconds=1), limit=9) == 0
        # The hour of the key, of its failures and of the device; then three hours; then the half day.
        assert await work.drop_key_counts(noon + HOUR, limit=9) == 3
        assert await work.drop_key_counts(noon + 3 * HOUR, limit=9) == 2
        assert await work.drop_key_counts(noon + 12 * HOUR, limit=9) == 2
        assert await work.drop_hour_counts(noon + 12 * HOUR, limit=9) == 1
    assert [await rows(store, table) for table in COUNTED] == [[]] * len(COUNTED)


async def test_no_more_numbers_go_than_are_asked_for(store: KeyStore) -> None:
    await add(store, several(*(replace(BAD, counted_key=f"key_{number}") for number in range(5))))
    async with store.transaction() as work:
        # Of keys and of their failures two each; of the one device both that are shorter.
        assert await work.drop_key_counts(NOW + 3 * HOUR, limit=2) == 6
        assert await work.drop_key_counts(NOW + 3 * HOUR, limit=100) == 8 + 3


@given(
    st.integers(0, 1440 * 60),
    st.timedeltas(timedelta(0), timedelta(days=20)),
    st.sampled_from([OF_OPERATIONS, OF_KEYS]),
)
def test_rows_of_a_time_begin_with_it_end_after_it_and_leave_no_gap(
    number: int, length: timedelta, lengths: tuple[int, ...]
) -> None:
    since = hour(NOW) + number * lengths[0] * timedelta(seconds=1)
    until = since + length
    found = spans(since, until, lengths)
    assert found[0].start == since.timestamp()
    assert found[-1].end - found[-1].seconds <= until.timestamp() < found[-1].end
    assert all(one.end == next_one.start and one.seconds < next_one.seconds for one, next_one in pairwise(found))
    for span in found:
        assert span.start % span.seconds == span.end % span.seconds == 0
        assert span.starts[-1] + span.seconds == span.end
    shorter = [len(span.starts) for span in found if span.seconds != lengths[-1]]
    assert sum(shorter) <= sum(longer // seconds for seconds, longer in pairwise(lengths))


async def test_operations_are_told_by_the_hour(store: KeyStore) -> None:
    at = hour(NOW)
    times = (at - 25 * HOUR, at - HOUR, at - MINUTE, at, NOW)
    await add(store, several(*(replace(ONE, at=each) for each in times), replace(BAD, at=NOW)))
    async with store.reading() as work:
        found = await work.hour_counts(at - 23 * HOUR, NOW)
    assert found == [HourCount(at - HOUR, 2, 0), HourCount(at, 3, 1)]
