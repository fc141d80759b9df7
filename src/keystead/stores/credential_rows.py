"""Secrets of users, and the ciphertexts that brought them, as rows."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime
from typing import Any, Final

from sqlalchemy import ColumnElement, and_, case, delete, or_, select, tuple_, update

from keystead.ports import CredentialRecord, SecretKind
from keystead.stores.records import as_record
from keystead.stores.tables import spent_ciphertexts, user_credentials
from keystead.stores.transaction import Statements

_users: Final = user_credentials
_spent: Final = spent_ciphertexts


class CredentialRows(Statements):
    """Secrets of users; ``keystead.ports.CredentialRows``."""

    async def find_credential(self, tenant: str, user_id: str, kind: SecretKind) -> CredentialRecord | None:
        """Return a secret of a user."""
        row = await self._first(select(_users).where(_is_secret(tenant, user_id, kind)))
        return None if row is None else as_record(CredentialRecord, _users, row)

    async def count_attempt(
        self, tenant: str, user_id: str, kind: SecretKind, *, now: datetime
    ) -> CredentialRecord | None:
        """Count an attempt on a secret, and return it with that; None where it is locked.

        Nobody else counts one before the transaction ends. A user who has no such secret gets a row.
        """
        free = or_(_users.c.locked_until.is_(None), _users.c.locked_until <= now)
        counting = update(_users).where(_is_secret(tenant, user_id, kind), free)
        counting = counting.values(counted=_users.c.counted + 1)
        row = await self._write(counting.returning(_users))
        if row is None:
            # Counted at once, where it is absent; one that is locked stays as it is.
            made = {"tenant": tenant, "user_id": user_id, "kind": kind.value, "counted": 1, "cleared": 0}
            insert = self._insert(_users).values(made)
            again = insert.on_conflict_do_update(
                index_elements=list(_users.primary_key), set_={"counted": _users.c.counted + 1}, where=free
            )
            row = await self._write(again.returning(_users))
        return None if row is None else as_record(CredentialRecord, _users, row)

    async def lock_credential(self, tenant: str, user_id: str, kind: SecretKind, *, until: datetime) -> None:
        """Have no attempt made until a time."""
        await self._write(update(_users).where(_is_secret(tenant, user_id, kind)).values(locked_until=until))

    async def clear_attempts(
        self, credential: CredentialRecord, *, below: int, verified_at: datetime, renewed: tuple[str, int] | None = None
    ) -> bool:
        """Forgive the attempts up to that which ``credential`` counted; False if its hash was replaced meanwhile.

        Args:
            below: with fewer failures left it is no longer locked.
            renewed: a hash of the same secret under another pepper or cost, and its pepper's id.
        """
        number = credential.counted
        cleared = case((_users.c.cleared < number, number), else_=_users.c.cleared)
        values: dict[str, Any] = {
            "cleared": cleared,
            "locked_until": case((_users.c.counted - cleared < below, None), else_=_users.c.locked_until),
            "verified_at": verified_at,
        }
        if renewed is not None:
            values["hash"], values["pepper_id"] = renewed
        found = _is_secret(credential.tenant, credential.user_id, credential.kind)
        return bool(await self._count(update(_users).where(found, _users.c.hash == credential.hash).values(values)))

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
        return bool(await self._count(update(_users).where(_is_secret(tenant, user_id, kind), before).values(change)))

    async def drop_credentials(self, tenant: str, user_id: str) -> int:
        """Remove a user's secrets; return how many."""
        return await self._count(delete(_users).where(_users.c.tenant == tenant, _users.c.user_id == user_id))

    async def count_credentials(self, pepper_id: int) -> int:
        """Return how many hashes are under a pepper."""
        return await self._number(_users, _users.c.pepper_id == pepper_id)


class SpentCiphertextRows(Statements):
    """Ciphertexts that have succeeded; ``keystead.ports.SpentCiphertextRows``."""

    async def is_spent(self, key_id: str, digest: bytes) -> bool:
        """Return whether a ciphertext to a key pair, by its SHA-256, has succeeded."""
        query = select(_spent.c.until).where(_spent.c.key_id == key_id, _spent.c.digest == digest)
        return await self._first(query) is not None

    async def spend(self, key_id: str, digest: bytes, *, until: datetime) -> bool:
        """Remember a ciphertext until a time; False where it was already."""
        row = {"key_id": key_id, "digest": digest, "until": until}
        insert = self._insert(_spent).values(row).on_conflict_do_nothing()
        return await self._write(insert.returning(_spent.c.key_id)) is not None

    async def drop_spent(self, before: datetime, *, limit: int) -> int:
        """Forget those whose time is over; return how many, ``limit`` at most."""
        row = tuple_(_spent.c.key_id, _spent.c.digest)
        due = select(_spent.c.key_id, _spent.c.digest).where(_spent.c.until <= before).limit(limit)
        return await self._count(delete(_spent).where(row.in_(due)))

    async def drop_spent_of(self, key_ids: Collection[str]) -> None:
        """Forget those of key pairs."""
        if key_ids:
            await self._write(delete(_spent).where(_spent.c.key_id.in_(key_ids)))


def _is_secret(tenant: str, user_id: str, kind: SecretKind) -> ColumnElement[bool]:
    return and_(_users.c.tenant == tenant, _users.c.user_id == user_id, _users.c.kind == kind.value)
