"""What is measured: the operations with key pairs of devices, why they fail, and how long they take."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from itertools import accumulate
from typing import Final

_BOUNDS_US: Final = [math.ceil(2 ** (number / 4)) for number in range(4 * 32 + 1)]
LONGEST_US: Final = _BOUNDS_US[-1] - 1
"""Some 71 minutes; what takes longer is told as this."""


class Operation(StrEnum):
    """What is done: handing a key pair out, whether new or not; encrypting as a client does; and decrypting."""

    GENERATE = "generate"
    ENCRYPT = "encrypt"
    DECRYPT = "decrypt"


class Fault(StrEnum):
    """Whose fault a failure is: of the key pair, of what the caller sent, or of the service."""

    KEY = "key"
    CALLER = "caller"
    SERVICE = "service"


class Reason(StrEnum):
    """Why an operation failed; there are no others, and nothing that a caller sent is in them."""

    KEY_NOT_FOUND = "Encryption key not found"
    """Or it is somebody else's."""
    KEY_EXPIRED = "Encryption key has expired"
    KEY_UNREADABLE = "key_retrieval_failed"
    NOT_GENERATED = "Key generation failed"
    NOT_ENCRYPTED = "Failed to encrypt data"
    NOT_DECRYPTED = "Failed to decrypt data"
    OVERSIZE = "Encrypted data size exceeds limit"
    MALFORMED = "Encrypted data is malformed"
    WRONG_PAYLOAD = "Payload is malformed, or for another operation or time"
    REPLAYED = "Encrypted data was used before"
    LOCKED = "Secret is locked"
    INVALID_INPUT = "Invalid input"
    FORBIDDEN = "Forbidden"
    RATE_LIMITED = "Rate limit exceeded"
    QUOTA_EXCEEDED = "Quota exceeded"
    OVERLOADED = "Service overloaded"
    OTHER = "Internal error"

    @property
    def fault(self) -> Fault:
        """Whose fault it is."""
        return _FAULTS.get(self, Fault.CALLER)

    @property
    def is_of_strangers(self) -> bool:
        """Whether it befalls only those who own neither key nor device."""
        return self in (Reason.KEY_NOT_FOUND, Reason.FORBIDDEN)


_FAULTS: Final[Mapping[Reason, Fault]] = {
    Reason.KEY_EXPIRED: Fault.KEY,
    Reason.KEY_UNREADABLE: Fault.SERVICE,
    Reason.NOT_GENERATED: Fault.SERVICE,
    Reason.NOT_ENCRYPTED: Fault.SERVICE,
    Reason.OVERLOADED: Fault.SERVICE,
    Reason.OTHER: Fault.SERVICE,
}


@dataclass(frozen=True, slots=True)
class Metric:
    """An operation that is over.

    Attributes:
        reason: why it failed; None if it did not. A wrong secret that was decrypted is no failure.
        duration_us: what its caller waited, at most ``LONGEST_US``.
        at: when it was over.
        is_counted: whether it is counted under its key and device.
    """

    operation: Operation
    reason: Reason | None
    duration_us: int
    key_id: str | None
    device_id: str | None
    tenant: str
    at: datetime
    is_counted: bool


def microseconds(seconds: float) -> int:
    """Return a duration as it is kept: 0 for what is none, ``LONGEST_US`` for what is longer."""
    return round(min(seconds * 1e6, LONGEST_US)) if seconds > 0 else 0


def bucket_of(duration_us: int) -> int:
    """Return the number of the range that a duration is in.

    There are four to each doubling, from 1 us to ``LONGEST_US``: range ``n`` begins at 2^(n/4) us. The middle of one,
    which a percentile is told by, is 9.1 % (2^(1/8) - 1) or less from everything in it. Below 1 us is 1 us.
    """
    return bisect_right(_BOUNDS_US, max(duration_us, 1)) - 1


def percentile_us(buckets: Mapping[int, int], percent: int) -> float:
    """Return what so many percent of operations did not take longer than, to the nearest rank; 9.1 % off at most.

    Args:
        buckets: how many operations each range has; one at least has one.
    """
    rank = -(-sum(buckets.values()) * percent // 100)
    ordered = sorted(buckets)
    passed = accumulate(buckets[bucket] for bucket in ordered)
    bucket = next(bucket for bucket, count in zip(ordered, passed, strict=True) if count >= rank)
    return math.sqrt(_BOUNDS_US[bucket] * (_BOUNDS_US[bucket + 1] - 1))
