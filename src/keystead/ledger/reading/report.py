"""What a verifier found."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

from keystead.ledger.tlog.checkpoint import Checkpoint

MAX_FINDINGS: Final = 1000
"""Findings that are kept; more are counted."""


class ErrorType(StrEnum):
    """What a finding is."""

    MODIFIED = "modified"
    MISSING = "missing"
    INSERTED = "inserted"
    DUPLICATED = "duplicated"
    REORDERED = "reordered"
    TRUNCATED = "truncated"
    REPLACED = "replaced"
    ROLLED_BACK = "rolled_back"
    MALFORMED = "malformed"
    UNTRUSTED = "untrusted"
    CHECKPOINT = "checkpoint"
    TIME = "time"


@dataclass(frozen=True, slots=True)
class VerifyError:
    """One finding.

    Attributes:
        seq: the number of the record it is about.
        line, offset: where in the file, lines from 1 and bytes from 0.
    """

    error_type: ErrorType
    message: str
    file: str
    line: int
    offset: int
    seq: int

    def as_dict(self) -> dict[str, Any]:
        """Return it ready for JSON."""
        return {name: getattr(self, name) for name in self.__slots__}


@dataclass(slots=True)
class VerifyReport:
    """Whether a log is as it was written.

    Attributes:
        valid: nothing was found.
        closed: the stream ends by its writer's will, so that nothing can be missing at its end.
        records_checked: records that were looked at.
        first, size: numbers of the first record that was there, and of the one that would be next.
        vouched: records before this number are vouched for by a checkpoint; where the stream is not closed, more may
            have stood behind the last one without anybody knowing.
        checkpoint: the last one that is good.
        findings: how many there are; ``errors`` has the first of them.
    """

    stream: str = ""
    closed: bool = False
    records_checked: int = 0
    records_invalid: int = 0
    first: int = 0
    size: int = 0
    vouched: int = 0
    files: int = 0
    sessions: int = 0
    checkpoint: Checkpoint | None = None
    findings: int = 0
    errors: list[VerifyError] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    @property
    def valid(self) -> bool:
        """Whether nothing was found."""
        return self.findings == 0

    def add(self, error: VerifyError) -> None:
        """Take a finding."""
        self.findings += 1
        if len(self.errors) < MAX_FINDINGS:
            self.errors.append(error)

    def as_dict(self) -> dict[str, Any]:
        """Return it ready for JSON."""
        plain = (
            "stream",
            "closed",
            "records_checked",
            "records_invalid",
            "first",
            "size",
            "vouched",
            "files",
            "sessions",
        )
        checkpoint = None if self.checkpoint is None else self.checkpoint.text()
        return {
            "valid": self.valid,
            **{name: getattr(self, name) for name in plain},
            "checkpoint": checkpoint,
            "findings": self.findings,
            "errors": [error.as_dict() for error in self.errors],
            "warnings": self.warnings,
        }
