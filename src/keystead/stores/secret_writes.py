"""The two writes of every verification of a secret, each with its entry in the audit trail.

In PostgreSQL each is one statement, and so a transaction by itself: it takes one message where begin, two or three
statements and commit take four or five, and holds the row of the secret for that much less.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final

from sqlalchemy import (
    CTE,
    ColumnElement,
    Select,
    bindparam,
    exists,
    insert,
    literal_column,
    select,
)
from sqlalchemy.dialects import postgresql

from keystead.errors import ReplayedError
from keystead.ports import AuditEntryRow, ClientKeyRecord, CredentialRecord, SecretKind
from keystead.stores import engines
from keystead.stores.audit_looks import AuditLooks
from keystead.stores.credential_rows import (
    CLEARING,
    COUNTING,
    IS_SECRET,
    CredentialRows,
    SpentCiphertextRows,
    clearing_values,
    credential_of,
    secret_values,
)
from keystead.stores.prepared import Prepared
from keystead.stores.tables import audit_entries, client_encryption_keys, spent_ciphertexts, user_credentials

_pairs: Final = client_encryption_keys
_users: Final = user_credentials
_spent: Final = spent_ciphertexts
_IS_AS_GIVEN: Final = exists(
    select(_pairs.c.id).where(
        _pairs.c.id == bindparam("pair"),
        _pairs.c.tenant == bindparam("of_tenant"),
        _pairs.c.owner == bindparam("of_user"),
        # Another WRAP key is another row; without any its private half is erased.
        _pairs.c.wrapped_by == bindparam("wrapped_by"),
        _pairs.c.expires_at.is_not_distinct_from(bindparam("expires_at", type_=_pairs.c.expires_at.type)),
    )
)
_IS_NEW: Final = ~exists(
    select(_spent.c.key_id).where(_spent.c.key_id == bindparam("pair"), _spent.c.digest == bindparam("digest"))
)
_COUNTING_FREE: Final = COUNTING.where(
    _users.c.counted + 1 - _users.c.cleared < bindparam("below"), _IS_AS_GIVEN, _IS_NEW
).returning(_users)


class SecretWrites(CredentialRows, SpentCiphertextRows, AuditLooks):
    """Writes of a verification; ``keystead.ports.SecretWrites``."""

    async def count_free_attempt(
        self,
        tenant: str,
        user_id: str,
        kind: SecretKind,
        *,
        given: tuple[ClientKeyRecord, bytes],
        now: datetime,
        below: int,
        entry: AuditEntryRow,
    ) -> CredentialRecord | None:
        """Count an attempt, with its entry; None where there is no such secret, or it is locked, or would be.

        None also where the key pair is not as ``given`` any more, or the ciphertext, by its SHA-256, has succeeded.
        """
        pair, digest = given
        values = {**secret_values(tenant, user_id, kind), "now": now, "below": below}
        values |= {"pair": pair.id, "wrapped_by": pair.wrapped_by, "expires_at": pair.expires_at, "digest": digest}
        if not self._is_sqlite:
            return credential_of(await self._run(_COUNT_WITH_ENTRY, values | _entry_values(entry)))
        counted = credential_of(await self._run(_COUNT, values))
        if counted is not None:
            await self.add_audit_entries([entry])
        return counted

    async def forgive_attempts(
        self,
        credential: CredentialRecord,
        *,
        below: int,
        verified_at: datetime,
        spent: tuple[str, bytes, datetime],
        entry: AuditEntryRow,
    ) -> bool:
        """Forgive the attempts up to that which ``credential`` counted, with an entry, and remember a ciphertext.

        False if the secret's hash was replaced meanwhile; the ciphertext may be remembered then.

        Args:
            below: with fewer failures left it is no longer locked.
            spent: the ciphertext's key pair, its SHA-256, and until when it is remembered.

        Raises:
            ReplayedError: the ciphertext has succeeded already, and nothing is forgiven.
        """
        key_id, digest, until = spent
        if self._is_sqlite:
            is_cleared = await self.clear_attempts(credential, below=below, verified_at=verified_at)
            is_new = is_cleared and await self.spend(key_id, digest, until=until)
            is_replayed = is_cleared and not is_new
            if is_new:
                await self.add_audit_entries([entry])
        else:
            values = clearing_values(credential, below=below, verified_at=verified_at)
            values |= {"key_id": key_id, "digest": digest, "until": until} | _entry_values(entry)
            [done] = await self._run(_FORGIVE_WITH_ENTRY, values)
            is_cleared, is_replayed = done["is_cleared"], done["is_current"] and not done["is_new"]
        if is_replayed:
            raise ReplayedError
        return is_cleared


def _entry_values(entry: AuditEntryRow) -> dict[str, Any]:
    return {f"entry_{name}": getattr(entry, name) for name in AuditEntryRow.__slots__}


def _limited() -> ColumnElement[bool]:
    """Set what a transaction that is begun has from its begin, before a row is waited for."""
    of_rows: ColumnElement[str] = literal_column(engines.ROW_LIMIT)
    lasts: ColumnElement[str] = literal_column(engines.LASTING)
    limits = select(of_rows.label("of_rows"), lasts.label("lasts"))
    return select(limits.cte("limits").c.of_rows).scalar_subquery().is_not(None)


def _telling(what: ColumnElement[bool]) -> CTE:
    """Write the entry if something was done."""
    names = AuditEntryRow.__slots__
    given = [bindparam(f"entry_{name}", type_=audit_entries.c[name].type) for name in names]
    return insert(audit_entries).from_select(list(names), select(*given).where(what)).cte("told")


def _count_with_entry(dialect: str) -> Select[Any]:
    counted = _COUNTING_FREE.where(_limited()).cte("counted")
    return select(counted).add_cte(_telling(exists(select(counted.c.kind))))


def _forgive_with_entry(dialect: str) -> Select[Any]:
    is_current = exists(select(_users.c.kind).where(IS_SECRET, _users.c.hash == bindparam("of_hash")))
    given = [bindparam(name, type_=_spent.c[name].type) for name in ("key_id", "digest", "until")]
    added = postgresql.insert(_spent).from_select(
        ["key_id", "digest", "until"], select(*given).where(is_current, _limited())
    )
    spent = added.on_conflict_do_nothing().returning(_spent.c.key_id).cte("spent")
    cleared = CLEARING.where(exists(select(spent.c.key_id))).cte("cleared")
    is_cleared = exists(select(cleared.c.kind))
    answered: dict[str, ColumnElement[Any]] = {
        "is_cleared": is_cleared,
        "is_new": exists(select(spent.c.key_id)),
        "is_current": is_current,
    }
    columns: list[ColumnElement[Any]] = [what.label(name) for name, what in answered.items()]
    return select(*columns).add_cte(_telling(is_cleared))


_COUNT: Final = Prepared(_COUNTING_FREE)
_COUNT_WITH_ENTRY: Final = Prepared(_count_with_entry)
_FORGIVE_WITH_ENTRY: Final = Prepared(_forgive_with_entry)
