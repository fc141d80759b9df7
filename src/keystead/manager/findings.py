"""What an examination finds: one line for each check, with the cure of what is wrong."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from keystead.errors import KMSError

DEADLINE_S: Final = 15.0
"""How long one provider, or the store, is examined; all are examined at the same time."""


class Health(StrEnum):
    """What a check came to."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"
    SKIPPED = "skipped"


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check found. ``cure`` says what to do where ``status`` is ``warn`` or ``fail``.

    ``about`` is ``store``, ``audit trail`` or ``provider NAME``; of a member of several KEKs ``provider NAME/MEMBER``.
    """

    about: str
    check: str
    status: Health
    detail: str
    cure: str | None = None


@dataclass(frozen=True, slots=True)
class DoctorReport:
    """What an examination found, providers first."""

    findings: list[Finding] = field(default_factory=list)

    @property
    def is_well(self) -> bool:
        """Whether nothing has failed; warnings do not count."""
        return all(finding.status is not Health.FAIL for finding in self.findings)


class Notes:
    """Collects findings about one thing."""

    def __init__(self, about: str) -> None:
        self.about = about
        self.findings: list[Finding] = []

    def ok(self, check: str, detail: str) -> None:
        """Note that all is well."""
        self.findings.append(Finding(self.about, check, Health.OK, detail))

    def skip(self, checks: str | Sequence[str], detail: str) -> None:
        """Note what was not looked at, and why."""
        for check in [checks] if isinstance(checks, str) else checks:
            self.findings.append(Finding(self.about, check, Health.SKIPPED, detail))

    def warn(self, check: str, detail: str, cure: str) -> None:
        """Note what should be seen to."""
        self.findings.append(Finding(self.about, check, Health.WARN, detail, cure))

    def fail(self, check: str, detail: str, cure: str) -> None:
        """Note what does not work."""
        self.findings.append(Finding(self.about, check, Health.FAIL, detail, cure))

    def error(self, check: str, error: KMSError, *, is_warning: bool = False) -> None:
        """Note an error, whose text is fit to be shown, with the cure of its kind."""
        note = self.warn if is_warning else self.fail
        note(check, str(error), error.cure)
