"""What somebody has looked into, and cannot be mended: from then on a warning. Spec: docs/spec/audit-v1.md, 6.4."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from keystead.ledger.audit.entries import are_ranges
from keystead.ports import AuditEvent, Detail

ACKNOWLEDGE: Final = "audit.acknowledge"
_GAPS_AT_ONCE: Final = 10_000
"""How many gaps one entry tells of: as many as it has room for."""

Gaps = Mapping[str, Sequence[Sequence[int]]]
"""Numbers of entries by session, in pairs of the first and the last of those that follow one another."""


@dataclass(slots=True)
class Outstanding:
    """What has been found, stays in the log for good, and nobody has acknowledged.

    Attributes:
        records: the numbers of records that tell of something.
        missing: entries that were committed and are not there.
    """

    records: list[int] = field(default_factory=list)
    missing: dict[str, list[list[int]]] = field(default_factory=dict)

    @property
    def entries(self) -> int:
        """How many entries are missing."""
        return sum(last - first + 1 for gaps in self.missing.values() for first, last in gaps)

    def __bool__(self) -> bool:
        """Whether there is anything."""
        return bool(self.records or self.missing)

    def events(self, record: int, reason: str) -> Iterator[AuditEvent]:
        """Yield what acknowledges it all, up to a record."""
        parts: list[dict[str, Detail]] = [{}]
        room = _GAPS_AT_ONCE
        for session, gaps in self.missing.items():
            for at in range(0, len(gaps), _GAPS_AT_ONCE):
                some = gaps[at : at + _GAPS_AT_ONCE]
                if room < len(some):
                    parts.append({})
                    room = _GAPS_AT_ONCE
                parts[-1][session] = some
                room -= len(some)
        for part in parts:
            details: dict[str, Detail] = {"record": record, "reason": reason}
            yield AuditEvent(ACKNOWLEDGE, details=details | ({"missing": part} if part else {}))


def acknowledged(details: Mapping[str, Any]) -> tuple[int, Gaps] | None:
    """Return the last record that an entry acknowledges, and the gaps; None where it says what none may say."""
    record, missing = details.get("record"), details.get("missing", {})
    if type(record) is not int or record < 0 or not isinstance(missing, dict):
        return None
    return (record, missing) if all(are_ranges(gaps) for gaps in missing.values()) else None
