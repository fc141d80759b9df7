"""What an entry says of files of the log that were moved away. Spec: docs/spec/audit-v1.md, 3.8 and 5."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from keystead.ledger.audit.entries import MAX_INTEGER
from keystead.ports import AuditEvent, Detail

RETIRE: Final = "audit.retire"
DAY_MS: Final = 86_400_000
SETTLED_MS: Final = 7 * DAY_MS
"""So long after a session has begun no entry of it is expected any more."""


@dataclass(frozen=True, slots=True)
class Retired:
    """Files that were moved away, and why. Sessions that began before ``horizon`` are over, as those in them."""

    files: Sequence[Mapping[str, int]]
    reason: str
    horizon: int

    def event(self) -> AuditEvent:
        """Return what asks for a word of it in the log."""
        files: list[Detail] = [dict(each) for each in self.files]
        return AuditEvent(RETIRE, details={"files": files, "reason": self.reason, "horizon": self.horizon})


def retired(details: Mapping[str, Any]) -> Retired | None:
    """Return what an entry says; None where it says what none may say."""
    files, reason, horizon = details.get("files"), details.get("reason"), details.get("horizon")
    if not isinstance(files, list) or not isinstance(reason, str) or type(horizon) is not int or not _is_count(horizon):
        return None
    for each in files:
        has_members = isinstance(each, dict) and each.keys() == {"file", "first", "last"}
        if not has_members or not all(map(_is_count, each.values())):
            return None
    return Retired(files, reason, horizon)


def horizon_from(first_ms: int) -> int:
    """Return the horizon, where the records before one of a time were moved away.

    A day more than the time itself: so far a node's clock may be ahead.
    """
    return first_ms + DAY_MS


def _is_count(value: object) -> bool:
    return type(value) is int and 0 <= value <= MAX_INTEGER
