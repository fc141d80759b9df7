"""Roles and their secret ids as rows."""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime
from typing import Final

from sqlalchemy import and_, delete, select, update

from keystead.ports import RoleKind, RoleRecord, SecretIdRecord
from keystead.stores.records import as_record
from keystead.stores.tables import access_roles, access_secret_ids, api_tokens
from keystead.stores.token_rows import newest_first
from keystead.stores.transaction import Statements

_roles: Final = access_roles
_secrets: Final = access_secret_ids


class RoleRows(Statements):
    """Roles and their secret ids; ``keystead.ports.RoleRows``."""

    async def add_role(self, role: RoleRecord) -> None:
        """Insert a role; ``ConflictError`` where its tenant has one of this kind and name."""
        await self._write(self._insert(_roles).values(asdict(role)))

    async def find_role(self, role_id: str, *, locks: bool = False) -> RoleRecord | None:
        """Return a role by its id; with ``locks`` nobody deletes it before the transaction ends."""
        query = select(_roles).where(_roles.c.id == role_id)
        row = await self._first(query.with_for_update(read=True) if locks else query)
        return None if row is None else as_record(RoleRecord, _roles, row)

    async def find_role_named(self, kind: RoleKind, tenant: str, name: str) -> RoleRecord | None:
        """Return a role by its name."""
        is_it = and_(_roles.c.kind == kind, _roles.c.tenant == tenant, _roles.c.name == name)
        row = await self._first(select(_roles).where(is_it))
        return None if row is None else as_record(RoleRecord, _roles, row)

    async def roles(
        self,
        kind: RoleKind | None = None,
        *,
        tenant: str | None = None,
        after: tuple[str, str] | None = None,
        limit: int | None = None,
    ) -> list[RoleRecord]:
        """Return the roles of a kind or of all, of a tenant or of all, in order as tokens are."""
        query = newest_first(_roles, after, limit)
        if kind is not None:
            query = query.where(_roles.c.kind == kind)
        if tenant is not None:
            query = query.where(_roles.c.tenant == tenant)
        return [as_record(RoleRecord, _roles, row) for row in await self._all(query)]

    async def remove_role(self, role_id: str, at: datetime) -> int | None:
        """Delete a role with its secret ids and revoke its tokens: return how many those were; None when absent."""
        # First what waits for logins that run: their tokens are there when those of the role are looked for.
        if await self._first(select(_roles.c.id).where(_roles.c.id == role_id).with_for_update()) is None:
            return None
        await self._count(delete(_secrets).where(_secrets.c.role_id == role_id))
        are_its = and_(api_tokens.c.role_id == role_id, api_tokens.c.revoked_at.is_(None))
        revoked = await self._count(update(api_tokens).where(are_its).values(revoked_at=at))
        await self._count(delete(_roles).where(_roles.c.id == role_id))
        return revoked

    async def add_secret_id(self, secret_id: SecretIdRecord) -> None:
        """Insert a secret id."""
        await self._write(self._insert(_secrets).values(asdict(secret_id)))

    async def find_secret_id(self, secret_id: str) -> SecretIdRecord | None:
        """Return a secret id by its id."""
        row = await self._first(select(_secrets).where(_secrets.c.id == secret_id))
        return None if row is None else as_record(SecretIdRecord, _secrets, row)

    async def secret_ids(
        self, role_id: str, *, after: tuple[str, str] | None = None, limit: int | None = None
    ) -> list[SecretIdRecord]:
        """Return the secret ids of a role, in order as tokens are."""
        query = newest_first(_secrets, after, limit).where(_secrets.c.role_id == role_id)
        return [as_record(SecretIdRecord, _secrets, row) for row in await self._all(query)]

    async def use_secret_id(self, secret_id: str, uses: int) -> bool:
        """Count a use; False, and nothing is counted, if it was used so often already or is absent."""
        is_good = and_(_secrets.c.id == secret_id, _secrets.c.used < uses)
        return await self._count(update(_secrets).where(is_good).values(used=_secrets.c.used + 1)) == 1

    async def remove_secret_id(self, secret_id: str) -> bool:
        """Delete a secret id; False when absent."""
        return await self._count(delete(_secrets).where(_secrets.c.id == secret_id)) == 1

    async def remove_ended_secret_ids(self, now: str) -> int:
        """Delete the secret ids whose time is over, and return how many."""
        return await self._count(delete(_secrets).where(_secrets.c.expires_at <= now))

    async def count_roles(self, key_id: int) -> int:
        """Return how many roles and secret ids have their code under a data key."""
        return await self._number(_roles, _roles.c.key_id == key_id) + await self._number(
            _secrets, _secrets.c.key_id == key_id
        )
