"""Metrics of client keys on their way to the store: noted at once, written together, and removed when they are old."""

from __future__ import annotations

import asyncio
import logging
import os
import re
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from keystead import telemetry
from keystead.devices.names import MAX_NAME
from keystead.devices.operations import Metric, Operation, Reason, bucket_of, microseconds
from keystead.errors import ConfigurationError
from keystead.ports import Clock, KeyStore, MetricRecord, Random

log = logging.getLogger("keystead.devices")

CAPACITY: Final = 10_000
"""Metrics that wait at most, unless it is given."""
BATCH: Final = 5000
_MAX_TENANT: Final = 255
_RANDOM_SIZE: Final = 10
_NOT_STORABLE: Final = re.compile("[\0\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class Retention:
    """How long metrics are kept.

    Attributes:
        raw: each operation, an hour at least: by it a flush finds out that an earlier one has succeeded.
        minutes: numbers by the minute, 25 hours at least: a summary of a day needs them.
        hours: numbers by longer times.
        keys: numbers of keys and devices.
    """

    raw: timedelta = timedelta(days=7)
    minutes: timedelta = timedelta(hours=48)
    hours: timedelta = timedelta(days=400)
    keys: timedelta = timedelta(days=400)

    def __post_init__(self) -> None:
        hour = timedelta(hours=1)
        if self.raw < hour or min(self.minutes, self.hours, self.keys) < 25 * hour:
            raise ConfigurationError("metrics are kept for an hour or more, and their numbers for 25 hours or more")


class Metrics:
    """Takes metrics from the operations of one event loop, and writes them to the store when it is asked to.

    Args:
        capacity: how many wait at most; further ones are dropped, and counted.
    """

    def __init__(
        self,
        store: KeyStore,
        clock: Clock,
        *,
        capacity: int = CAPACITY,
        retention: Retention | None = None,
        random: Random = os.urandom,
    ) -> None:
        self._store = store
        self._clock = clock
        self._capacity = capacity
        self._retention = retention or Retention()
        self._random = random
        self._noted: list[Metric] = []
        self._batch: list[MetricRecord] = []
        self._line = asyncio.Lock()
        self._is_out = False
        self._dropped = 0

    @property
    def waiting(self) -> int:
        """How many are not known to be written."""
        return len(self._noted) + len(self._batch)

    @property
    def dropped(self) -> int:
        """How many found no place, ever."""
        return self._dropped

    def note(
        self,
        operation: Operation,
        duration_s: float,
        *,
        reason: Reason | None = None,
        key_id: str | None = None,
        device_id: str | None = None,
        tenant: str = "",
        is_owner: bool = False,
    ) -> None:
        """Keep a metric in memory; never raises, and never waits. A text that the store could not hold is left out.

        Args:
            is_owner: whether key and device are known to be the caller's, as they are where nothing failed; a failure
                that befell anybody else is counted under neither.
        """
        result = "ok" if reason is None else reason.name.lower()
        telemetry.client_key_operation(str(operation), result, duration_s)
        if self.waiting >= self._capacity:
            self._dropped += 1
            return
        key_id, device_id = _storable(key_id, MAX_NAME), _storable(device_id, MAX_NAME)
        if _storable(tenant, _MAX_TENANT) is None:
            tenant, device_id = "", None
        duration_us, at = microseconds(duration_s), self._clock.now()
        is_counted = reason is None or (is_owner and not reason.is_of_strangers)
        self._noted.append(Metric(operation, reason, duration_us, key_id, device_id, tenant, at, is_counted))

    async def flush(self) -> int:
        """Write what waits, in one transaction; return how many that were. What cannot be written waits on.

        Raises nothing: that the store takes none is logged, once until it does again. Each metric is counted once,
        however often a flush is cancelled or loses its connection: what an earlier one left goes first, as it was.
        """
        async with self._line:
            written = await self._written()
            if not self._batch:
                self._batch = [self._record(metric) for metric in self._noted]
                self._noted = []
                written += await self._written()
            return written

    async def upkeep(self) -> int:
        """Remove what is kept no longer, some rows at a time; return how many rows that were."""
        now, kept, removed = self._clock.now(), self._retention, 0
        while True:
            async with self._store.transaction() as work:
                step = await work.drop_metrics(now - kept.raw, limit=BATCH)
                step += await work.drop_minute_counts(now - kept.minutes, limit=BATCH)
                step += await work.drop_hour_counts(now - kept.hours, limit=BATCH)
                step += await work.drop_key_counts(now - kept.keys, limit=BATCH)
            if not step:
                return removed
            removed += step

    async def _written(self) -> int:
        """Write the batch, unless an earlier attempt has; return how many metrics were in it."""
        if not self._batch:
            return 0
        try:
            async with self._store.transaction() as work:
                await work.add_metrics(self._batch)
        except Exception as exc:
            if not self._is_out:
                code = getattr(exc, "code", type(exc).__name__)
                log.warning("metrics cannot be written, and wait: %s", code, extra={"waiting": self.waiting})
            self._is_out = True
            return 0
        written, self._batch = len(self._batch), []
        if self._is_out:
            log.info("metrics are written again", extra={"dropped": self._dropped})
        self._is_out = False
        return written

    def _record(self, metric: Metric) -> MetricRecord:
        """Return a metric as it is written, with an id that sorts by time."""
        is_decrypt = metric.operation is Operation.DECRYPT
        return MetricRecord(
            f"{int(metric.at.timestamp() * 1000):012x}{self._random(_RANDOM_SIZE).hex()}",
            metric.operation.value,
            "" if metric.reason is None else metric.reason.value,
            metric.duration_us,
            bucket_of(metric.duration_us),
            metric.at,
            metric.key_id,
            metric.device_id,
            metric.key_id if metric.is_counted and is_decrypt else None,
            metric.device_id if metric.is_counted else None,
            metric.tenant,
        )


def _storable(text: str | None, longest: int) -> str | None:
    """Return a text; None for one that no database takes, since it would keep all the others out."""
    return None if text is None or len(text) > longest or _NOT_STORABLE.search(text) else text
