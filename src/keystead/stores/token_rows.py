"""API tokens as rows."""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Select, Table, and_, bindparam, delete, func, literal, or_, select, update

from keystead.ports import TokenRecord
from keystead.stores.prepared import Prepared
from keystead.stores.records import as_record
from keystead.stores.tables import api_tokens
from keystead.stores.transaction import Statements

_tokens: Final = api_tokens
_FIND: Final = Prepared(select(_tokens).where(_tokens.c.id == bindparam("of_id")))


class TokenRows(Statements):
    """API tokens; ``keystead.ports.TokenRows``."""

    async def add_token(self, token: TokenRecord) -> None:
        """Insert a token."""
        await self._write(self._insert(_tokens).values(asdict(token)))

    async def find_token(self, token_id: str) -> TokenRecord | None:
        """Return a token by its id."""
        rows = await self._run(_FIND, {"of_id": token_id}, writes=False)
        return as_record(TokenRecord, _tokens, rows[0]) if rows else None

    async def tokens(
        self, *, tenant: str | None = None, after: tuple[str, str] | None = None, limit: int | None = None
    ) -> list[TokenRecord]:
        """Return the tokens of a tenant or of all, the newest first; those ``after`` a time of making and an id."""
        query = newest_first(_tokens, after, limit)
        if tenant is not None:
            query = query.where(_tokens.c.tenant == tenant)
        return [as_record(TokenRecord, _tokens, row) for row in await self._all(query)]

    async def use_token(self, token_id: str, uses: int) -> bool:
        """Count a use; False, and nothing is counted, if it was used so often already, was revoked or is absent."""
        is_good = and_(_tokens.c.id == token_id, _tokens.c.used < uses, _tokens.c.revoked_at.is_(None))
        return await self._count(update(_tokens).where(is_good).values(used=_tokens.c.used + 1)) == 1

    async def renew_token(self, renewed: TokenRecord, *, was: str) -> bool:
        """Give a token another end and code; False if it does not end when it ``was`` to any more, or was revoked."""
        is_it = and_(_tokens.c.id == renewed.id, _tokens.c.expires_at == was, _tokens.c.revoked_at.is_(None))
        change = update(_tokens).where(is_it)
        return await self._count(change.values(expires_at=renewed.expires_at, code=renewed.code)) == 1

    async def revoke_token(self, token_id: str, at: datetime) -> TokenRecord | None:
        """Revoke a token unless it was, and return it as it is then; None when absent."""
        change = update(_tokens).where(_tokens.c.id == token_id)
        now = literal(at, _tokens.c.revoked_at.type)
        change = change.values(revoked_at=func.coalesce(_tokens.c.revoked_at, now))
        row = await self._write(change.returning(_tokens))
        return None if row is None else as_record(TokenRecord, _tokens, row)

    async def remove_ended_tokens(self, before: str, limit: int) -> int:
        """Delete up to ``limit`` tokens that were got by roles and ended before a time, and return how many."""
        have_ended = and_(_tokens.c.role_id.is_not(None), _tokens.c.expires_at < before)
        first = select(_tokens.c.id).where(have_ended).order_by(_tokens.c.expires_at).limit(limit)
        return await self._count(delete(_tokens).where(_tokens.c.id.in_(first)))

    async def count_tokens(self, key_id: int) -> int:
        """Return how many tokens that were not revoked have their code under a data key."""
        return await self._number(_tokens, and_(_tokens.c.key_id == key_id, _tokens.c.revoked_at.is_(None)))


def newest_first(table: Table, after: tuple[str, str] | None, limit: int | None) -> Select[Any]:
    """Return the query of a page of rows, the newest first; those ``after`` a time of making and an id."""
    query = select(table).order_by(table.c.created_at.desc(), table.c.id)
    if after is not None:
        made, row_id = after
        # The first of both is what an index is entered by.
        query = query.where(table.c.created_at <= made, or_(table.c.created_at < made, table.c.id > row_id))
    return query if limit is None else query.limit(limit)
