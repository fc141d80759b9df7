"""What a role says: how programs show that they are of it, and what their tokens are."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import timedelta
from enum import StrEnum
from typing import Any, Final, TypeVar

from keystead.access.callers import MAX_SUBJECT
from keystead.access.tokens import LONGEST, Lease
from keystead.config.web_urls import is_loopback, require_web_url
from keystead.errors import ConfigurationError, InvalidInputError
from keystead.ports import RoleRecord

LONGEST_S: Final = int(LONGEST.total_seconds())
MOST_USES: Final = 1_000_000_000
MAX_NAMED: Final = 20
"""Audiences, claims, values of a claim, or keys that a role names."""
MAX_RULES: Final = 65_536
LEEWAY_S: Final = 30
_NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}")
R = TypeVar("R")
Claim = str | bool | int


class AuditMode(StrEnum):
    """How what a token does with keys is in the audit trail."""

    COUNTED = "counted"
    """Counts of many operations together."""
    EACH = "each"
    """An entry for each operation."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenRules:
    """What the tokens of a role are.

    Attributes:
        token_ttl_s: seconds that one is good for.
        token_max_ttl_s: seconds after its making that renewals may reach; None: it cannot be renewed.
        token_uses: how often it can be shown; None for any number.
    """

    token_ttl_s: int
    token_max_ttl_s: int | None = None
    token_uses: int | None = None
    audit: AuditMode = AuditMode.COUNTED

    def check(self) -> None:
        """Raise ``InvalidInputError`` where something cannot be."""
        _require_number("a token's TTL", self.token_ttl_s, LONGEST_S)
        if self.token_max_ttl_s is not None:
            _require_number("a token's longest TTL", self.token_max_ttl_s, LONGEST_S)
            if self.token_max_ttl_s < self.token_ttl_s:
                raise InvalidInputError("a token's longest TTL is no shorter than its TTL")
        if self.token_uses is not None:
            _require_number("uses of a token", self.token_uses, MOST_USES)

    def lease(self, role_id: str) -> Lease:
        """Return what a new token has."""
        longest = self.token_ttl_s if self.token_max_ttl_s is None else self.token_max_ttl_s
        return Lease(role_id, self.token_ttl_s, longest, self.token_uses, self.audit is AuditMode.EACH)


@dataclass(frozen=True, slots=True, kw_only=True)
class AppRoleRules(TokenRules):
    """A role that programs show by its id and a secret id.

    Attributes:
        secret_id_ttl_s: seconds that a secret id is good for.
        secret_id_uses: for how many logins.
    """

    secret_id_ttl_s: int
    secret_id_uses: int

    def check(self) -> None:
        """Raise ``InvalidInputError`` where something cannot be."""
        TokenRules.check(self)
        _require_number("a secret id's TTL", self.secret_id_ttl_s, LONGEST_S)
        _require_number("logins with a secret id", self.secret_id_uses, MOST_USES)


@dataclass(frozen=True, slots=True, kw_only=True)
class JwtRules(TokenRules):
    """A role that programs show by a JWT of somebody who knows them.

    Attributes:
        audiences: one of which the JWT names.
        issuer: as the JWT spells it; its keys are read from there unless ``public_keys`` has them.
        jwks_uri: where its keys are, instead of asking its discovery.
        public_keys: PEM, in place of keys that are read.
        bound_subject: what ``sub`` has to be.
        bound_claims: what claims have to be, each one of some values; a name that begins with ``/`` is a JSON pointer.
        user_claim: the claim that names whoever logs in.
    """

    audiences: tuple[str, ...]
    issuer: str | None = None
    jwks_uri: str | None = None
    public_keys: tuple[str, ...] = ()
    bound_subject: str | None = None
    bound_claims: Mapping[str, tuple[Claim, ...]] = field(default_factory=dict)
    user_claim: str = "sub"
    leeway_s: int = LEEWAY_S

    def check(self) -> None:
        """Raise ``InvalidInputError`` where something cannot be."""
        TokenRules.check(self)
        _require_texts("audiences", self.audiences, least=1)
        _require_texts("claims", [*self.bound_claims])
        for name, values in self.bound_claims.items():
            if not 1 <= len(values) <= MAX_NAMED or not all(isinstance(value, str | bool | int) for value in values):
                raise InvalidInputError(f"the claim {name!r} is bound to 1 to {MAX_NAMED} texts, numbers or booleans")
        _require_texts("names of a claim", [self.user_claim])
        if self.bound_subject is not None:
            _require_texts("subjects", [self.bound_subject])
        if not 0 <= self.leeway_s <= 300:
            raise InvalidInputError("an issuer's clock may be off by 0 to 300 seconds")
        if len(self.public_keys) > MAX_NAMED:
            raise InvalidInputError(f"a role has up to {MAX_NAMED} public keys")
        self._check_keys()

    def _check_keys(self) -> None:
        if self.public_keys:
            if self.jwks_uri is not None:
                raise InvalidInputError("a role has public keys of its own, or the address of a key set: not both")
            if self.issuer is not None:
                _require_texts("issuers", [self.issuer])
            return
        if self.issuer is None:
            raise InvalidInputError("a JWT role needs an issuer, or public keys in PEM that its JWTs are signed by")
        try:
            if self.jwks_uri is None:
                require_web_url(self.issuer)
            else:
                _require_texts("issuers", [self.issuer])
                require_web_url(self.jwks_uri, may_have_query=True, may_be_plain=is_loopback(self.jwks_uri))
        except ConfigurationError as exc:
            raise InvalidInputError(f"the issuer's keys cannot be read from there: {exc}") from None


def checked_role_name(name: str) -> str:
    """Return the name of a role.

    Raises:
        InvalidInputError: it cannot be one.
    """
    if not _NAME.fullmatch(name):
        raise InvalidInputError("a role's name has 1 to 64 letters, digits, `_`, `.` and `-`, and begins with no sign")
    return name


def seconds(duration: timedelta | None) -> int | None:
    """Return whole seconds of a duration, where there is one.

    Raises:
        InvalidInputError: it has parts of a second.
    """
    if duration is None:
        return None
    if duration.microseconds:
        raise InvalidInputError("a time of a role is in whole seconds")
    return int(duration.total_seconds())


def rules_text(rules: TokenRules) -> str:
    """Return rules as a row has them.

    Raises:
        InvalidInputError: they are too many.
    """
    text = json.dumps(asdict(rules), sort_keys=True, separators=(",", ":"))
    if len(text) > MAX_RULES:
        raise InvalidInputError(f"the rules of a role have up to {MAX_RULES} characters")
    return text


def rules_of(row: RoleRecord, kind: type[R]) -> R:
    """Return the rules of a row.

    Raises:
        InvalidInputError: a later release made them.
    """
    try:
        given: dict[str, Any] = json.loads(row.rules)
        given["audit"] = AuditMode(given["audit"])
        for name in ("audiences", "public_keys"):
            if name in given:
                given[name] = tuple(given[name])
        if "bound_claims" in given:
            given["bound_claims"] = {claim: tuple(values) for claim, values in given["bound_claims"].items()}
        return kind(**given)
    except (ValueError, TypeError, KeyError, AttributeError):
        raise InvalidInputError(f"the role {row.name!r} is one of a later release: use that") from None


def _require_number(what: str, value: int, most: int) -> None:
    if isinstance(value, bool) or not 1 <= value <= most:
        raise InvalidInputError(f"{what}: 1 to {most}")


def _require_texts(what: str, values: Sequence[str], *, least: int = 0) -> None:
    if not least <= len(values) <= MAX_NAMED:
        raise InvalidInputError(f"{what}: {least} to {MAX_NAMED}")
    if not all(0 < len(value) <= MAX_SUBJECT and value.isprintable() for value in values):
        raise InvalidInputError(f"{what} are texts of 1 to {MAX_SUBJECT} printable characters")
