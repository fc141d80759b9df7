"""What the store keeps of operations with the key pairs of devices: each of them for days, their numbers for longer."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol


@dataclass(frozen=True, slots=True)
class MetricRecord:
    """An operation.

    Attributes:
        id: 32 hexadecimal digits that no other one has.
        reason: why it failed; an empty text where it did not.
        bucket: the number of a range of durations, by which percentiles are told.
        key_id: what was asked for, whether there is such a key or not; as ``device_id``.
        counted_key: the key among whose decrypts it is counted, if it is one.
        counted_device: the device of ``tenant`` that it is counted for.
    """

    id: str
    operation: str
    reason: str
    duration_us: int
    bucket: int
    at: datetime
    key_id: str | None = None
    device_id: str | None = None
    counted_key: str | None = None
    counted_device: str | None = None
    tenant: str = ""


@dataclass(frozen=True, slots=True)
class MetricCount:
    """How many operations of a kind had a reason and took a time of a bucket; all of their time, and the longest."""

    operation: str
    reason: str
    bucket: int
    count: int
    total_us: int
    longest_us: int


@dataclass(frozen=True, slots=True)
class HourCount:
    """The operations of the hour that begins ``at``, and those of them that failed."""

    at: datetime
    total: int
    failures: int


@dataclass(frozen=True, slots=True)
class KeyCount:
    """The decrypts of a key, and those of them that failed."""

    key_id: str
    total: int
    failures: int


@dataclass(frozen=True, slots=True)
class KeyFailureCount:
    """The decrypts of a key that failed for a reason."""

    key_id: str
    reason: str
    count: int


@dataclass(frozen=True, slots=True)
class DeviceCount:
    """The operations of a device."""

    tenant: str
    device_id: str
    count: int


class MetricRows(Protocol):
    """Operations with key pairs, and their numbers.

    Numbers are for a time that begins with ``since``, a whole hour, and has ``until`` in it; what is dated later may be
    counted as well.
    """

    async def add_metrics(self, metrics: Sequence[MetricRecord]) -> bool:
        """Insert operations, and count them; False if they were added already, going by the id of the first."""

    async def metric_counts(self, since: datetime, until: datetime) -> list[MetricCount]:
        """Return the numbers of operations; ``since`` may also be a whole minute."""

    async def hour_counts(self, since: datetime, until: datetime) -> list[HourCount]:
        """Return the numbers of each hour that has some, the earliest first."""

    async def failing_keys(
        self, since: datetime, until: datetime, *, threshold_percent: float, at_least: int
    ) -> list[KeyCount]:
        """Return keys of which more than so many percent of ``at_least`` decrypts failed, most failures first."""

    async def key_failures(self, key_ids: Collection[str], since: datetime) -> list[KeyFailureCount]:
        """Return why decrypts of keys failed, of each the commonest reason first."""

    async def busiest_devices(self, since: datetime, until: datetime, *, limit: int) -> tuple[int, list[DeviceCount]]:
        """Return how many devices there were, and those with the most operations."""

    async def drop_metrics(self, before: datetime, *, limit: int) -> int:
        """Remove operations from before a time; return how many, ``limit`` at most."""

    async def drop_minute_counts(self, before: datetime, *, limit: int) -> int:
        """Remove numbers by the minute that end before a time; return how many rows, ``limit`` at most."""

    async def drop_hour_counts(self, before: datetime, *, limit: int) -> int:
        """Remove numbers by longer times that end before one; return how many rows, ``limit`` at most."""

    async def drop_key_counts(self, before: datetime, *, limit: int) -> int:
        """Remove numbers of keys and devices that end before a time; return how many, ``limit`` a table at most."""
