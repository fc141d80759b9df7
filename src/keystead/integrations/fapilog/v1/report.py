"""What verifying a log of fapilog-tamper finds, by its names."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

MAX_FINDINGS: Final = 1000
"""Findings that are kept; more are counted."""

LIMITS: Final = (
    "format 1 of fapilog-tamper: the chain has no key, and the MAC of a record covers its content alone; only the "
    "signed manifest vouches for order, number and end of the records",
    "format 1: a file and its manifest can be put back to an earlier pair, and the last files of a sequence be "
    "removed, without being seen",
    "format 1: records are compared as JSON, not as bytes, and whoever can verify HMACs can forge them",
)
"""What no report of this format can say."""


@dataclass(slots=True)
class VerifyError:
    """One finding.

    Attributes:
        error_type: ``mac_mismatch``, ``chain_break``, ``seq_gap``, ``missing_key``; also ``malformed``,
            ``missing_integrity``, ``empty_file``, ``missing_manifest``, ``manifest_mismatch`` and
            ``manifest_signature``.
        line, offset: where in the file, lines from 1 and bytes from 0; 0 of what is about the whole file.
    """

    seq: int
    error_type: str
    expected: str | None = None
    actual: str | None = None
    message: str = ""
    line: int = 0
    offset: int = 0


@dataclass(slots=True)
class VerifyReport:
    """Whether a file is as it was written, as far as format 1 can tell: ``warnings`` say what it cannot.

    Attributes:
        records_valid: records whose MAC is good.
        chain_breaks: numbers of records that do not follow the one before.
        manifest_valid: whether the manifest is signed and says what the file has; None without one.
        findings: how many there are; ``errors`` has the first of them.
        duration_ms: milliseconds that it took.
    """

    valid: bool
    file_path: str
    records_checked: int = 0
    records_valid: int = 0
    records_invalid: int = 0
    first_invalid_seq: int | None = None
    chain_valid: bool = True
    chain_breaks: list[int] = field(default_factory=list)
    manifest_valid: bool | None = None
    manifest_signature_valid: bool | None = None
    errors: list[VerifyError] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    duration_ms: float = 0.0
    findings: int = 0

    @property
    def checked(self) -> int:
        """Another name of ``records_checked``."""
        return self.records_checked

    def add(self, error: VerifyError) -> None:
        """Take a finding."""
        self.valid = False
        self.findings += 1
        if self.first_invalid_seq is None:
            self.first_invalid_seq = error.seq
        if error.error_type in {"chain_break", "seq_gap"}:
            self.chain_valid = False
        if error.error_type == "chain_break" and len(self.chain_breaks) < MAX_FINDINGS:
            self.chain_breaks.append(error.seq)
        if len(self.errors) < MAX_FINDINGS:
            self.errors.append(error)

    def warn(self, message: str) -> None:
        """Take a warning, once."""
        if message not in self.warnings:
            self.warnings.append(message)

    def merge(self, other: VerifyReport) -> None:
        """Take what was found in another file."""
        self.records_checked += other.records_checked
        self.records_valid += other.records_valid
        self.records_invalid += other.records_invalid
        for error in other.errors:
            self.add(error)
        self.findings += other.findings - len(other.errors)
        self.valid = self.valid and other.valid
        self.chain_valid = self.chain_valid and other.chain_valid
        for warning in other.warnings:
            self.warn(warning)
