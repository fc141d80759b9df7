"""What the metrics of client keys say together. Its JSON is described by docs/spec/metrics-summary-v1.schema.json."""

from __future__ import annotations

import asyncio
import hmac
import json
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from keystead.crypto.framing import framed
from keystead.devices.operations import Fault, Operation, Reason, percentile_us
from keystead.devices.statements import instant
from keystead.errors import ConfigurationError, InvalidInputError
from keystead.ports import Clock, DeviceCount, HourCount, KeyFailureCount, KeyStore, MetricCount, UnitOfWork

MAX_HOURS: Final = 8760
MIN_DECRYPTS: Final = 5
"""A key with fewer is not looked at."""
THRESHOLD_PERCENT: Final = 10
TOP_DEVICES: Final = 10
TOP_KEYS: Final = 100
"""Problematic keys in a summary; ``find_problematic_keys`` has all."""
_MIN_HASH_KEY: Final = 16
_HASH_DIGITS: Final = 16


@dataclass(frozen=True, slots=True)
class ProblematicKey:
    """A key of which too many decrypts failed, and why, the commonest reason first."""

    key_id: str
    total: int
    failures: int
    reasons: tuple[KeyFailureCount, ...]

    @property
    def failure_rate(self) -> float | None:
        """How many of a hundred failed."""
        return _rate(self.failures, self.total)


class Summaries:
    """Tells what was done in the last hours, from the numbers alone: no operation is read.

    A time ends now and begins so many hours ago, rounded down to a whole minute, or to a whole hour where it is longer
    than a day; ``since`` says when. Numbers of devices and keys always begin with the whole hour that it is in.

    Args:
        hash_key: 16 bytes or more that device ids are hashed under; they are not told.

    Raises:
        ConfigurationError: a shorter ``hash_key``.
    """

    def __init__(self, store: KeyStore, clock: Clock, hash_key: bytes) -> None:
        if len(hash_key) < _MIN_HASH_KEY:
            raise ConfigurationError(f"device ids are hashed under a key of {_MIN_HASH_KEY} bytes or more")
        self._store = store
        self._clock = clock
        self._hash_key = hash_key

    async def summary(self, hours: float = 24) -> dict[str, Any]:
        """Return the summary of the last hours, made of what JSON has.

        Durations are in milliseconds, over all operations, failed or not; rates in percent, None where there was no
        operation. Percentiles are 9.1 % off at most, everything else is exact; of problematic keys there are the 100
        with the most failures.

        Raises:
            InvalidInputError: not more than 0 and at most 8760 hours.
        """
        since, until = self._since(hours)
        counts, (distinct, busiest), problematic = await asyncio.gather(
            self._counts(since, until), self._busiest(since, until), self._problematic(since, until)
        )
        reasons: Counter[str] = Counter()
        for each in counts:
            reasons[each.reason] += each.count
        succeeded = reasons.pop("", 0)
        failed = reasons.total()
        return {
            "timeframeHours": hours,
            "since": instant(since),
            "until": instant(until),
            "totalOperations": succeeded + failed,
            "successCount": succeeded,
            "failureCount": failed,
            "successRate": _rate(succeeded, succeeded + failed),
            "operations": _of_operations(counts),
            "errorReasons": [
                {"reason": reason, "count": count}
                for reason, count in sorted(reasons.items(), key=lambda item: (-item[1], item[0]))
            ],
            "devices": {
                "distinct": distinct,
                "top": [{"deviceIdHash": self._hash(each), "count": each.count} for each in busiest],
            },
            "problematicKeys": [_of_key(key) for key in problematic],
        }

    async def operations(self, hours: float = 24) -> dict[str, dict[str, Any]]:
        """Return what ``summary`` has of each operation, and nothing else of it; errors as there."""
        return _of_operations(await self._counts(*self._since(hours)))

    async def by_hour(self, hours: int = 24) -> list[HourCount]:
        """Return the operations of each of the last hours, this one included, the earliest first.

        Raises:
            InvalidInputError: not 1 to 8760 hours.
        """
        if not (isinstance(hours, int) and 0 < hours <= MAX_HOURS):
            raise InvalidInputError(f"hours is a whole number from 1 to {MAX_HOURS}")
        until = self._clock.now()
        each = [_hour(until) - timedelta(hours=ago) for ago in reversed(range(hours))]
        async with self._store.reading() as work:
            found = {count.at: count for count in await work.hour_counts(each[0], until)}
        return [found.get(at, HourCount(at, 0, 0)) for at in each]

    async def summary_text(self, hours: float = 24) -> str:
        """Return the summary as JSON; errors as ``summary``."""
        return json.dumps(await self.summary(hours), separators=(",", ":"))

    async def find_problematic_keys(
        self, hours: float = 24, threshold_percent: float = THRESHOLD_PERCENT, *, limit: int | None = None
    ) -> list[ProblematicKey]:
        """Return keys with 5 decrypts or more of which more than so many percent failed, most failures first.

        With ``limit`` no more than so many are returned.

        What failed for somebody who does not own the key is not among them. Nothing is done to the keys.

        Raises:
            InvalidInputError: hours as in ``summary``, or a threshold that is not 0 to 100.
        """
        since, until = self._since(hours)
        if not (_is_number(threshold_percent) and 0 <= threshold_percent <= 100):
            raise InvalidInputError("threshold_percent is a number from 0 to 100")
        async with self._store.reading() as work:
            return await _problematic(work, since, until, threshold_percent, limit)

    # Each sees the store in a moment of its own, so that a database does them at the same time.

    async def _counts(self, since: datetime, until: datetime) -> list[MetricCount]:
        async with self._store.reading() as work:
            return await work.metric_counts(since, until)

    async def _busiest(self, since: datetime, until: datetime) -> tuple[int, list[DeviceCount]]:
        async with self._store.reading() as work:
            return await work.busiest_devices(_hour(since), until, limit=TOP_DEVICES)

    async def _problematic(self, since: datetime, until: datetime) -> list[ProblematicKey]:
        async with self._store.reading() as work:
            return await _problematic(work, since, until, THRESHOLD_PERCENT, TOP_KEYS)

    def _since(self, hours: float) -> tuple[datetime, datetime]:
        """Return when a time begins that ends now, and now."""
        if not (_is_number(hours) and 0 < hours <= MAX_HOURS):
            raise InvalidInputError(f"timeframeHours is a number above 0, and at most {MAX_HOURS}")
        until = self._clock.now()
        since = (until - timedelta(hours=hours)).replace(second=0, microsecond=0)
        return (since if hours <= 24 else _hour(since)), until

    def _hash(self, device: DeviceCount) -> str:
        message = framed("keystead metrics device v1", device.tenant, device.device_id)
        return hmac.digest(self._hash_key, message, "sha256").hex()[:_HASH_DIGITS]


async def _problematic(
    work: UnitOfWork, since: datetime, until: datetime, threshold_percent: float, limit: int | None = None
) -> list[ProblematicKey]:
    since = _hour(since)
    found = await work.failing_keys(since, until, threshold_percent=threshold_percent, at_least=MIN_DECRYPTS)
    found = found[:limit]
    reasons: dict[str, list[KeyFailureCount]] = defaultdict(list)
    for failures in await work.key_failures([key.key_id for key in found], since):
        reasons[failures.key_id].append(failures)
    return [ProblematicKey(key.key_id, key.total, key.failures, tuple(reasons[key.key_id])) for key in found]


def _of_operations(counts: Sequence[MetricCount]) -> dict[str, dict[str, Any]]:
    return {
        operation.value: _of_operation([each for each in counts if each.operation == operation])
        for operation in Operation
    }


def _of_operation(counts: Sequence[MetricCount]) -> dict[str, Any]:
    """Return the numbers of one operation."""
    total = sum(each.count for each in counts)
    succeeded = sum(each.count for each in counts if not each.reason)
    told: dict[str, Any] = {
        "total": total,
        "success": succeeded,
        "failure": total - succeeded,
        "successRate": _rate(succeeded, total),
        "failureRate": _rate(total - succeeded, total),
    }
    if not total:
        return told | dict.fromkeys(("avgDurationMs", "p50", "p95", "p99", "max"))
    buckets: Counter[int] = Counter()
    for each in counts:
        buckets[each.bucket] += each.count
    longest_us = max(each.longest_us for each in counts)
    told["avgDurationMs"] = _ms(sum(each.total_us for each in counts) / total)
    for percent in (50, 95, 99):
        told[f"p{percent}"] = _ms(min(percentile_us(buckets, percent), longest_us))
    return told | {"max": _ms(longest_us)}


def _of_key(key: ProblematicKey) -> dict[str, Any]:
    return {
        "keyId": key.key_id,
        "total": key.total,
        "failures": key.failures,
        "failureRate": key.failure_rate,
        "reasons": [
            {"kind": fault_of(each.reason).value, "reason": each.reason, "count": each.count} for each in key.reasons
        ],
    }


def fault_of(reason: str) -> Fault:
    """Return whose fault a failure is; of a reason that only a newer release has, the service's."""
    return Reason(reason).fault if reason in set(Reason) else Fault.SERVICE


def _rate(part: int, total: int) -> float | None:
    return round(100 * part / total, 4) if total else None


def _ms(duration_us: float) -> float:
    return round(duration_us / 1000, 3)


def _hour(moment: datetime) -> datetime:
    return moment.replace(minute=0, second=0, microsecond=0)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
