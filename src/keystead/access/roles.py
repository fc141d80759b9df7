"""Roles: made, shown, deleted; and the secret ids by which programs show that they are of one."""

from __future__ import annotations

import uuid
from collections.abc import Collection
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from keystead.access.callers import AnyScope, checked_subject, is_mighty
from keystead.access.codes import Codes
from keystead.access.removal import remove_all
from keystead.access.role_rules import AppRoleRules, JwtRules, checked_role_name, rules_of, rules_text
from keystead.access.static_keys import StaticKeys
from keystead.access.token_text import (
    ID_SIZE,
    SECRET_ID_PREFIX,
    SECRET_SIZE,
    TokenParts,
    role_code,
    secret_id_code,
    token_text,
)
from keystead.errors import ConflictError, InvalidInputError, KeyNotFoundError
from keystead.model import Act, Action, SecretText, utc_text
from keystead.ports import (
    AuditEvent,
    AuditTrail,
    Clock,
    Consent,
    Freely,
    KeyStore,
    Random,
    RoleKind,
    RoleRecord,
    SecretIdRecord,
)

KEPT: Final = timedelta(days=1)
"""How long tokens that have ended are in the list."""
KINDS: Final = {AppRoleRules: RoleKind.APPROLE, JwtRules: RoleKind.JWT}


@dataclass(frozen=True, slots=True)
class NewSecretId:
    """A secret id as it is shown, once, and what is kept of it."""

    text: SecretText
    row: SecretIdRecord


class Roles:
    """The roles of a store.

    Each change is an entry of the audit trail. Roles of one kind and name are told apart by their tenants.
    """

    def __init__(
        self,
        store: KeyStore,
        codes: Codes,
        *,
        audit: AuditTrail,
        clock: Clock,
        random: Random,
        consent: Consent | None = None,
    ) -> None:
        self._consent = consent or Freely()
        self._store = store
        self._codes = codes
        self._audit = audit
        self._clock = clock
        self._random = random

    async def create(
        self, name: str, scopes: Collection[AnyScope], rules: AppRoleRules | JwtRules, *, tenant: str = ""
    ) -> RoleRecord:
        """Make a role. Nobody changes one: it is deleted and made anew.

        Raises:
            InvalidInputError: a name, scope or rule that cannot be.
            ConflictError: there is one of this name.
            StoreRestoredError: the store must be recovered first.
            ApprovalRequiredError: the store asks for two people.
        """
        if not scopes:
            raise InvalidInputError("tokens without a scope could do nothing; name at least one")
        rules.check()
        if isinstance(rules, JwtRules) and rules.public_keys:
            StaticKeys(rules.public_keys)
        key_id, key = self._codes.active()
        row = RoleRecord(
            id=str(uuid.UUID(bytes=self._random(16), version=4)),
            kind=KINDS[type(rules)],
            tenant=checked_subject(tenant, may_be_empty=True),
            name=checked_role_name(name),
            scopes=" ".join(sorted(scopes)),
            rules=rules_text(rules),
            created_at=utc_text(self._clock.now()),
            key_id=key_id,
            code=b"",
        )
        row = row.with_code(role_code(key, row))
        how = {"kind": row.kind.value, "scopes": row.scopes, "rules": row.rules}
        act = Act(Action.ROLE_CREATE, row.name, how, row.tenant)
        async with self._consent.given(act), self._store.transaction() as work:
            if await work.find_role_named(row.kind, row.tenant, row.name) is not None:
                raise ConflictError(f"there is a role {name!r}: delete it, which revokes its tokens, or name another")
            await self._audit.record(work, AuditEvent("role.create", details=_told(row) | {"scopes": row.scopes}))
            await work.add_role(row)
        return row

    async def all(
        self,
        kind: RoleKind | None = None,
        *,
        tenant: str | None = None,
        after: tuple[str, str] | None = None,
        limit: int | None = None,
    ) -> list[RoleRecord]:
        """Return roles, the newest first.

        Args:
            tenant: of this tenant; None for any.
            after: the time of making and the id of the last one that is known already.
        """
        async with self._store.reading() as work:
            return await work.roles(kind, tenant=tenant, after=after, limit=limit)

    async def get(self, kind: RoleKind, name: str, *, tenant: str = "") -> RoleRecord:
        """Return a role.

        Raises:
            KeyNotFoundError: the tenant has none of this name.
        """
        async with self._store.reading() as work:
            row = await work.find_role_named(kind, tenant, name)
        if row is None:
            raise _no_role()
        return row

    async def delete(self, kind: RoleKind, name: str, *, tenant: str = "") -> int:
        """Delete a role with its secret ids, and revoke its tokens, on every node within five seconds.

        Returns how many tokens were revoked; errors as ``get``.
        """
        row = await self.get(kind, name, tenant=tenant)
        act = Act(Action.ROLE_DELETE, row.name, {"kind": row.kind.value, "role": row.id}, row.tenant)
        async with self._consent.given(act), self._store.transaction() as work:
            revoked = await work.remove_role(row.id, self._clock.now())
            if revoked is None:
                raise _no_role()
            await self._audit.record(work, AuditEvent("role.delete", details=_told(row) | {"tokens": revoked}))
        return revoked

    async def create_secret_id(self, name: str, *, tenant: str = "") -> NewSecretId:
        """Make a secret id of an AppRole; the role says for how long and how many logins it is good.

        Raises:
            KeyNotFoundError: the tenant has no AppRole of this name.
            StoreRestoredError: the store must be recovered first.
            ApprovalRequiredError: the store asks for two people, and the role could ask for what they approve.
        """
        role = await self.get(RoleKind.APPROLE, name, tenant=tenant)
        rules = rules_of(await self.checked(role), AppRoleRules)
        now = self._clock.now()
        key_id, key = self._codes.active()
        parts = TokenParts(self._random(ID_SIZE).hex(), self._random(SECRET_SIZE))
        row = SecretIdRecord(
            id=parts.id,
            role_id=role.id,
            created_at=utc_text(now),
            expires_at=utc_text(now + timedelta(seconds=rules.secret_id_ttl_s)),
            uses=rules.secret_id_uses,
            key_id=key_id,
            code=b"",
        )
        row = row.with_code(secret_id_code(key, row, parts.secret))
        consent = self._consent if is_mighty(role.scopes.split(" ")) else Freely()
        act = Act(Action.SECRET_ID_CREATE, role.name, {"role": role.id}, role.tenant)
        async with consent.given(act), self._store.transaction() as work:
            if await work.find_role(role.id, locks=True) is None:
                raise _no_role()
            await self._audit.record(work, AuditEvent("secret_id.create", details=_told(role) | {"secret_id": row.id}))
            await work.add_secret_id(row)
        return NewSecretId(SecretText(token_text(parts, SECRET_ID_PREFIX)), row)

    async def secret_ids(
        self, name: str, *, tenant: str = "", after: tuple[str, str] | None = None, limit: int | None = None
    ) -> list[SecretIdRecord]:
        """Return the secret ids of an AppRole, the newest first; none is shown."""
        role = await self.get(RoleKind.APPROLE, name, tenant=tenant)
        async with self._store.reading() as work:
            return await work.secret_ids(role.id, after=after, limit=limit)

    async def delete_secret_id(self, name: str, secret_id: str, *, tenant: str = "") -> None:
        """Delete a secret id of an AppRole; tokens that were got by it live on.

        Raises:
            KeyNotFoundError: there is none.
        """
        role = await self.get(RoleKind.APPROLE, name, tenant=tenant)
        async with self._store.transaction() as work:
            row = await work.find_secret_id(secret_id)
            if row is None or row.role_id != role.id or not await work.remove_secret_id(secret_id):
                raise KeyNotFoundError("no secret id of this id; `keystead token role secret-id list` shows them")
            await self._audit.record(work, AuditEvent("secret_id.delete", details=_told(role) | {"secret_id": row.id}))

    async def upkeep(self) -> int:
        """Remove secret ids that have ended, and tokens of roles that ended a day ago: return how many of both."""
        now = self._clock.now()
        async with self._store.transaction() as work:
            removed = await work.remove_ended_secret_ids(utc_text(now))
        before = utc_text(now - KEPT)
        return removed + await remove_all(self._store, lambda work, most: work.remove_ended_tokens(before, most))

    async def find(self, role_id: str) -> RoleRecord | None:
        """Return a role by its id; None where there is none."""
        async with self._store.reading() as work:
            return await work.find_role(role_id)

    async def checked(self, row: RoleRecord) -> RoleRecord:
        """Return a role if it is as it was made.

        Raises:
            InvalidInputError: somebody has changed its row.
        """
        if not await self._codes.fit(row, lambda key: role_code(key, row)):
            raise InvalidInputError(f"the role {row.name!r} is not as it was made; delete it and make it anew")
        return row


def _told(row: RoleRecord) -> dict[str, str | int]:
    return {"role": row.name, "kind": row.kind.value, "tenant": row.tenant, "role_id": row.id}


def _no_role() -> KeyNotFoundError:
    return KeyNotFoundError("no role of this name; `keystead token role list` shows them")
