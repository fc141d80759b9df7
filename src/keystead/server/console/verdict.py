"""What a verification of the audit trail found, in sentences."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from keystead.ledger.audit.verifying import AuditReport
from keystead.ledger.reading.report import ErrorType
from keystead.model.counts import counted

SHOWN: Final = 100
MEANINGS: Final = {
    ErrorType.MODIFIED: "It does not say what it said when it was written.",
    ErrorType.MISSING: "Something that was committed is not here any more, or a part of the trail was not kept.",
    ErrorType.INSERTED: "No node of this store has written it: somebody else put it into the database.",
    ErrorType.DUPLICATED: "One entry stands in two places; only one of them was written.",
    ErrorType.REORDERED: "It does not stand where it was written.",
    ErrorType.TRUNCATED: "The end of the trail was cut off.",
    ErrorType.REPLACED: "Other records, or another trail, stand in its place.",
    ErrorType.ROLLED_BACK: "The trail was put back to an earlier state, as a backup does that is played back.",
    ErrorType.MALFORMED: "It is no record of a trail: the row was damaged, or written by something else.",
    ErrorType.UNTRUSTED: "It is sealed by a key that this store does not know.",
    ErrorType.CHECKPOINT: "A signature over the trail does not fit the records that it is over.",
    ErrorType.TIME: "Its time cannot be: a clock went backwards, or the record was changed.",
}
"""What each kind of finding means."""


@dataclass(frozen=True, slots=True)
class Told:
    """A finding: its kind, the record that it is about (None for none), what was found, and what that means."""

    kind: str
    record: int | None
    found: str
    means: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether what was checked is as it was written.

    Attributes:
        checked: a sentence each: what was looked at, and how far.
        left_out: what was not, and how to have it checked.
        findings: the first ``SHOWN`` of ``total``.
        warnings: what is no finding, and worth knowing.
    """

    is_good: bool
    checked: Sequence[str]
    left_out: Sequence[str]
    findings: Sequence[Told]
    total: int
    warnings: Sequence[str]


def verdict(report: AuditReport) -> Verdict:
    """Return a report in sentences."""
    return Verdict(
        report.valid,
        _checked(report),
        _left_out(report),
        [_told(each.error_type, each.seq, each.message) for each in report.log.errors[:SHOWN]],
        report.log.findings,
        report.log.warnings,
    )


def _checked(report: AuditReport) -> list[str]:
    log = report.log
    told = [
        f"{counted(log.records_checked, 'record was', 'records were')} looked at, number {log.first} to "
        f"{max(log.size - 1, log.first)} of the trail {log.stream}: the seal, the number and the time of each.",
        f"{counted(report.entries, 'entry', 'entries')} among them: whether a node of this store has written each, and "
        "whether none is missing that was committed.",
    ]
    if log.vouched:
        told.append(
            f"A signed checkpoint vouches for everything before record {log.vouched}; what it says fits the records."
        )
    if report.waiting:
        many = "entries wait to be sealed, and were checked as well."
        told.append(counted(report.waiting, "entry waits to be sealed, and was checked as well.", many))
    return told


def _left_out(report: AuditReport) -> list[str]:
    log, told = report.log, []
    if log.first:
        told.append(
            f"The {log.first} records before number {log.first} were not looked at. `keystead audit verify` checks all "
            "that are in the database, and with --archive those that were moved away."
        )
    if not log.vouched and report.valid:
        told.append("No checkpoint vouches for it yet: one is made each minute in which there are records.")
    elif not log.vouched:
        told.append("No checkpoint vouches for it as it stands.")
    if report.unchecked:
        told.append(
            f"{counted(report.unchecked, 'entry is', 'entries are')} of sessions whose key is not at hand, and could "
            "not be told from others."
        )
    told.append(
        "An end that was cut off together with all trace of it is found only by a checkpoint that was kept elsewhere: "
        "`keystead audit verify --since-checkpoint FILE`."
    )
    told.append("Whether the keys in the store are as the trail says: `keystead audit verify --compare-store`.")
    return told


def _told(kind: ErrorType, record: int, found: str) -> Told:
    return Told(kind.value.replace("_", " "), record if record >= 0 else None, found, MEANINGS[kind])
