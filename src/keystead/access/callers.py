"""Callers: a principal, and what it may do."""

from __future__ import annotations

import contextlib
from collections.abc import Collection
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Final

from keystead.access.transit_scopes import (
    NO_RIGHTS,
    PREFIX,
    TransitOperation,
    TransitRights,
    TransitScope,
    transit_rights,
    transit_scope,
)
from keystead.errors import ForbiddenError, InvalidInputError
from keystead.model import Principal


class Scope(StrEnum):
    """What a caller may be allowed. Nothing is allowed that no scope names."""

    DEVICES_USE = "devices:use"
    """Devices of its own: keys for them, secrets set and verified."""
    DEVICES_DECRYPT = "devices:decrypt"
    """Data that was encrypted to its devices, in clear."""
    DEVICES_ADMIN = "devices:admin"
    """Devices of everybody in its tenant; users forgotten."""
    SECRETS_RESET = "secrets:reset"
    """Secrets replaced without the current one; locks ended."""
    METRICS_READ = "metrics:read"
    """How much was done and how it came out, of all tenants together: no caller of a tenant is told."""
    KEYRINGS_READ = "keyrings:read"
    KEYRINGS_WRITE = "keyrings:write"
    JOBS_READ = "jobs:read"
    JOBS_WRITE = "jobs:write"
    AUDIT_READ = "audit:read"
    TOKENS_WRITE = "tokens:write"
    """Tokens made and revoked: whoever has it can have every scope, within its tenant where it has one."""
    APPROVALS_WRITE = "approvals:write"
    """What others ask for approved or refused, where the store asks for two people."""
    ACT_AS = "act-as"
    """Other users of its tenant, named with each call: for a back end that knows its users."""


AnyScope = Scope | TransitScope
"""A scope of the service, or one of the engine."""
EVERY_SCOPE: Final = frozenset(Scope)
EVERY_OPERATION: Final = transit_rights(frozenset({transit_scope("transit:*:*")}))
_MIGHTY: Final = frozenset({Scope.KEYRINGS_WRITE, Scope.DEVICES_ADMIN, Scope.TOKENS_WRITE, Scope.APPROVALS_WRITE})
_DESTROYING: Final = (TransitOperation.TRIM, TransitOperation.DELETE)
MAX_SCOPES: Final = 100
MAX_SUBJECT: Final = 255


@dataclass(frozen=True, slots=True)
class Caller:
    """Who calls, and what it may do.

    Attributes:
        origin: what showed it, as an audit entry has it: ``token <id>``, ``issuer <url>`` or ``development``.
        transit: what it may do with keys of the engine.
        is_audited_each: whether each of its operations on a key is an entry of its own in the audit trail, and not
            only counted there.
    """

    principal: Principal
    scopes: frozenset[Scope]
    origin: str
    transit: TransitRights = field(default=NO_RIGHTS)
    is_audited_each: bool = False

    def may_transit(self, operation: str, key: str = "") -> bool:
        """Whether the caller may do an operation of the engine, on a key where it is about one."""
        return self.transit.allow(operation, key)

    def require(self, *scopes: Scope) -> None:
        """Raise ``ForbiddenError`` unless one of the scopes is held."""
        if not self.scopes.intersection(scopes):
            raise ForbiddenError(f"this takes the scope {' or '.join(scopes)}")

    def require_all_tenants(self) -> None:
        """Raise ``ForbiddenError`` if the caller is of a tenant: what it asks for is of all of them."""
        if self.principal.tenant:
            raise ForbiddenError(
                "this covers all tenants, and is not for a caller of one: use a token without a tenant"
            )

    def acting_as(self, user: str) -> Caller:
        """Return the caller as another user of its tenant, with the same scopes.

        Raises:
            ForbiddenError: it may not act for others.
            InvalidInputError: the name cannot be one.
        """
        self.require(Scope.ACT_AS)
        shown = self.principal
        return replace(self, principal=Principal(checked_subject(user), shown.tenant, behind=shown.user))


def checked_subject(text: str, *, may_be_empty: bool = False) -> str:
    """Return the name of a user or tenant.

    Raises:
        InvalidInputError: not 1 to 255 printable characters.
    """
    if (may_be_empty and text == "") or (0 < len(text) <= MAX_SUBJECT and text.isprintable() and text.strip()):
        return text
    raise InvalidInputError(f"a user or tenant is a text of 1 to {MAX_SUBJECT} printable characters")


def scopes_of(names: Collection[str]) -> frozenset[AnyScope]:
    """Return scopes by their names.

    Raises:
        InvalidInputError: there is none of a name, the message lists those there are; one of the engine is malformed.
    """
    ours = {scope.value for scope in Scope}
    unknown = sorted(name for name in set(names) - ours if not name.startswith(PREFIX))
    if unknown:
        known = ", ".join((*sorted(Scope), "transit:<operation>:<key glob>"))
        raise InvalidInputError(f"no scope {unknown[0]!r}; there are: {known}")
    if len(set(names)) > MAX_SCOPES:
        raise InvalidInputError(
            f"up to {MAX_SCOPES} scopes go together; a `*` in a scope of the engine has it cover more"
        )
    return frozenset(Scope(name) if name in ours else transit_scope(name) for name in names)


def is_mighty(scopes: Collection[str]) -> bool:
    """Whether scopes allow to ask for what takes a second person's approval, or to give that."""
    of_service, of_engine = allowed_by(scopes)
    return bool(of_service & _MIGHTY) or any(of_engine.allow_some(each) for each in _DESTROYING)


def allowed_by(names: Collection[str]) -> tuple[frozenset[Scope], TransitRights]:
    """Return what scopes allow that were given before, maybe to a later release: what is not known allows nothing."""
    of_service = frozenset(scope for scope in Scope if scope.value in names)
    of_engine: set[TransitScope] = set()
    for name in names:
        if name.startswith(PREFIX):
            with contextlib.suppress(InvalidInputError):
                of_engine.add(transit_scope(name))
    return of_service, transit_rights(frozenset(of_engine))
