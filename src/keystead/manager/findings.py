"""What an examination finds: one line for each check, with the cure of what is wrong."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from keystead.errors import (
    ConfigurationError,
    DecryptionError,
    ForeignSchemaError,
    InvalidInputError,
    KeyNotFoundError,
    KeyStateError,
    KMSError,
    MissingDependencyError,
    ProviderAuthError,
    ProviderConnectionError,
    ProviderNotConfiguredError,
    SchemaVersionError,
    StorageOperationError,
    StoreNotFoundError,
    StoreUnavailableError,
)

DEADLINE_S: Final = 15.0
"""How long one provider, or the store, is examined; all are examined at the same time."""

_CURES: Final[Mapping[type[KMSError], str]] = {
    MissingDependencyError: "install the extra that the message names",
    ProviderAuthError: "give the process credentials that the service takes, with the permissions on this key that the "
    "page of this key service lists",
    ProviderNotConfiguredError: "configure the provider under that name, or map the name with provider_aliases",
    SchemaVersionError: "do as the message says: `keystead migrate`, or a newer release",
    ForeignSchemaError: "give the store a database or schema of its own",
    KeyNotFoundError: "check the key's name, and the region, project, mount or token in which it is looked for",
    KeyStateError: "enable the key, or call its deletion off, where it is kept",
    StoreNotFoundError: "name the store that is meant, or make one: `keystead init`",
    StoreUnavailableError: "start the database, and check address, network, user and password",
    ProviderConnectionError: "check address, network, proxy and TLS; a service that is merely busy recovers by itself",
    ConfigurationError: "change the setting as the message says",
    DecryptionError: "another key than the one that wrapped this, or altered bytes: compare the settings with those it "
    "was made under, and the store with an export",
    InvalidInputError: "this key or service does not take such a call: use a key that is made for encryption",
    StorageOperationError: "check the database's state and this process's rights in it",
}


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
        note(check, str(error), cure_of(error))


def cure_of(error: KMSError) -> str:
    """Return what to do about an error."""
    for kind, cure in _CURES.items():
        if isinstance(error, kind):
            return cure
    return f"see {error.code} on the page of errors"
