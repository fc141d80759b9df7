"""Secrets of users, and the ciphertexts that brought them, as rows."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Insert, and_, bindparam, case, delete, or_, select, tuple_, update

from keystead.ports import CredentialRecord, SecretKind
from keystead.stores.prepared import Prepared, Row
from keystead.stores.records import as_record
from keystead.stores.tables import spent_ciphertexts, user_credentials
from keystead.stores.transaction import Statements, insert_into

_users: Final = user_credentials
_spent: Final = spent_ciphertexts

IS_SECRET: Final = and_(
    _users.c.tenant == bindparam("of_tenant"),
    _users.c.user_id == bindparam("of_user"),
    _users.c.kind == bindparam("of_kind"),
)
_BY_LOCK: Final = (_users.c.locked_until, _users.c.user_id, _users.c.kind)
_FREE: Final = or_(_users.c.locked_until.is_(None), _users.c.locked_until <= bindparam("now"))
_CLEARED: Final = case((_users.c.cleared < bindparam("number"), bindparam("number")), else_=_users.c.cleared)
COUNTING: Final = update(_users).where(IS_SECRET, _FREE).values(counted=_users.c.counted + 1)
CLEARING: Final = (
    update(_users)
    .where(IS_SECRET, _users.c.hash == bindparam("of_hash"))
    .values(
        cleared=_CLEARED,
        locked_until=case((_users.c.counted - _CLEARED < bindparam("below"), None), else_=_users.c.locked_until),
        verified_at=bindparam("at"),
    )
    .returning(_users.c.kind)
)


def _begin_counting(dialect: str) -> Insert:
    """Count at once, where the secret is absent; one that is locked after all stays as it is."""
    made: dict[str, Any] = {
        "tenant": bindparam("of_tenant"),
        "user_id": bindparam("of_user"),
        "kind": bindparam("of_kind"),
    }
    again = {"counted": _users.c.counted + 1}
    insert = insert_into(_users, dialect).values(**made, counted=1, cleared=0)
    insert = insert.on_conflict_do_update(index_elements=list(_users.primary_key), set_=again, where=_FREE)
    return insert.returning(_users)


def _spend(dialect: str) -> Insert:
    return insert_into(_spent, dialect).on_conflict_do_nothing().returning(_spent.c.key_id)


_FIND: Final = Prepared(select(_users).where(IS_SECRET))
_COUNT: Final = Prepared(COUNTING.returning(_users))
_BEGIN_COUNTING: Final = Prepared(_begin_counting)
_LOCK: Final = Prepared(update(_users).where(IS_SECRET).values(locked_until=bindparam("until")))
_CLEAR: Final = Prepared(CLEARING)
_RENEW: Final = Prepared(CLEARING.values(hash=bindparam("renewed"), pepper_id=bindparam("renewed_under")))
_SPEND: Final = Prepared(_spend)


class CredentialRows(Statements):
    """Secrets of users; ``keystead.ports.CredentialRows``."""

    async def find_credential(self, tenant: str, user_id: str, kind: SecretKind) -> CredentialRecord | None:
        """Return a secret of a user."""
        return credential_of(await self._run(_FIND, secret_values(tenant, user_id, kind), writes=False))

    async def count_attempt(
        self, tenant: str, user_id: str, kind: SecretKind, *, now: datetime
    ) -> CredentialRecord | None:
        """Count an attempt on a secret, and return it with that; None where it is locked.

        Nobody else counts one before the transaction ends. A user who has no such secret gets a row.
        """
        values = {**secret_values(tenant, user_id, kind), "now": now}
        if rows := await self._run(_COUNT, values):
            return credential_of(rows)
        found = await self.find_credential(tenant, user_id, kind)
        if found is not None and found.locked_until is not None and found.locked_until > now:
            # However many ask, none of them waits for another.
            return None
        return credential_of(await self._run(_BEGIN_COUNTING, values))

    async def lock_credential(self, tenant: str, user_id: str, kind: SecretKind, *, until: datetime) -> None:
        """Have no attempt made until a time."""
        await self._run(_LOCK, {**secret_values(tenant, user_id, kind), "until": until})

    async def locked_credentials(
        self, tenant: str, now: datetime, *, after: tuple[datetime, str, str] | None = None, limit: int
    ) -> list[CredentialRecord]:
        """Return a page of a tenant's secrets that are locked now, those first whose lock is over first.

        Args:
            after: until when it is locked, user and kind of the last one before.
        """
        query = select(_users).where(_users.c.tenant == tenant)
        if after is None or after[0] <= now:
            query = query.where(_users.c.locked_until > now)
        else:
            # The first of both is what an index is entered by.
            query = query.where(_users.c.locked_until >= after[0], tuple_(*_BY_LOCK) > after)
        rows = await self._all(query.order_by(*_BY_LOCK).limit(limit))
        return [as_record(CredentialRecord, _users, row) for row in rows]

    async def release_credential(self, tenant: str, user_id: str, kind: SecretKind, *, now: datetime) -> bool:
        """End a lock, and forgive every attempt; False where it is not locked."""
        is_it = (_users.c.tenant == tenant, _users.c.user_id == user_id, _users.c.kind == kind.value)
        released = update(_users).where(*is_it, _users.c.locked_until > now)
        return bool(await self._count(released.values(cleared=_users.c.counted, locked_until=None)))

    async def clear_attempts(
        self, credential: CredentialRecord, *, below: int, verified_at: datetime, renewed: tuple[str, int] | None = None
    ) -> bool:
        """Forgive the attempts up to that which ``credential`` counted; False if its hash was replaced meanwhile.

        Args:
            below: with fewer failures left it is no longer locked.
            renewed: a hash of the same secret under another pepper or cost, and its pepper's id.
        """
        values = clearing_values(credential, below=below, verified_at=verified_at)
        if renewed is None:
            return bool(await self._run(_CLEAR, values))
        return bool(await self._run(_RENEW, {**values, "renewed": renewed[0], "renewed_under": renewed[1]}))

    async def set_credential(
        self,
        tenant: str,
        user_id: str,
        kind: SecretKind,
        *,
        hashed: tuple[str, int],
        at: datetime,
        instead_of: str | None,
    ) -> bool:
        """Keep a new hash with its pepper's id, and forgive every attempt.

        False if the hash that is kept is not ``instead_of``, None for none.
        """
        kept = {"hash": hashed[0], "pepper_id": hashed[1], "set_at": at}
        made = {"tenant": tenant, "user_id": user_id, "kind": kind.value, "counted": 0, "cleared": 0}
        before = _users.c.hash.is_(None) if instead_of is None else _users.c.hash == instead_of
        change = {**kept, "cleared": _users.c.counted, "locked_until": None, "verified_at": None}
        insert = self._insert(_users).values({**made, **kept})
        again = insert.on_conflict_do_update(index_elements=list(_users.primary_key), set_=change, where=before)
        if instead_of is None:
            return await self._write(again.returning(_users.c.kind)) is not None
        is_it = (_users.c.tenant == tenant, _users.c.user_id == user_id, _users.c.kind == kind.value)
        return bool(await self._count(update(_users).where(*is_it, before).values(change)))

    async def drop_credentials(self, tenant: str, user_id: str) -> int:
        """Remove a user's secrets; return how many."""
        return await self._count(delete(_users).where(_users.c.tenant == tenant, _users.c.user_id == user_id))

    async def count_credentials(self, pepper_id: int) -> int:
        """Return how many hashes are under a pepper."""
        return await self._number(_users, _users.c.pepper_id == pepper_id)


class SpentCiphertextRows(Statements):
    """Ciphertexts that have succeeded; ``keystead.ports.SpentCiphertextRows``."""

    async def spend(self, key_id: str, digest: bytes, *, until: datetime) -> bool:
        """Remember a ciphertext until a time; False where it was already."""
        return bool(await self._run(_SPEND, {"key_id": key_id, "digest": digest, "until": until}))

    async def drop_spent(self, before: datetime, *, limit: int) -> int:
        """Forget those whose time is over; return how many, ``limit`` at most."""
        row = tuple_(_spent.c.key_id, _spent.c.digest)
        due = select(_spent.c.key_id, _spent.c.digest).where(_spent.c.until <= before).limit(limit)
        return await self._count(delete(_spent).where(row.in_(due)))

    async def drop_spent_of(self, key_ids: Collection[str]) -> None:
        """Forget those of key pairs."""
        if key_ids:
            await self._write(delete(_spent).where(_spent.c.key_id.in_(key_ids)))


def credential_of(rows: Sequence[Row]) -> CredentialRecord | None:
    """Return the first of some rows as a secret."""
    return as_record(CredentialRecord, _users, rows[0]) if rows else None


def clearing_values(credential: CredentialRecord, *, below: int, verified_at: datetime) -> dict[str, Any]:
    """Return the values of ``CLEARING``."""
    values = secret_values(credential.tenant, credential.user_id, credential.kind)
    return {**values, "of_hash": credential.hash, "number": credential.counted, "below": below, "at": verified_at}


def secret_values(tenant: str, user_id: str, kind: SecretKind) -> dict[str, Any]:
    """Return the values of a statement on one secret."""
    return {"of_tenant": tenant, "of_user": user_id, "of_kind": str(kind)}
