"""Sessions of people at the console as rows."""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime
from typing import Final

from sqlalchemy import bindparam, delete, func, literal, select, update

from keystead.ports import SessionRecord
from keystead.stores.prepared import Prepared
from keystead.stores.records import as_record
from keystead.stores.tables import console_sessions
from keystead.stores.token_rows import newest_first
from keystead.stores.transaction import Statements

_sessions: Final = console_sessions
_FIND: Final = Prepared(select(_sessions).where(_sessions.c.id == bindparam("of_id")))


class SessionRows(Statements):
    """Sessions; ``keystead.ports.SessionRows``."""

    async def add_session(self, session: SessionRecord) -> None:
        """Insert a session."""
        await self._write(self._insert(_sessions).values(asdict(session)))

    async def find_session(self, session_id: str) -> SessionRecord | None:
        """Return a session by its id."""
        rows = await self._run(_FIND, {"of_id": session_id}, writes=False)
        return as_record(SessionRecord, _sessions, rows[0]) if rows else None

    async def sessions(
        self, *, tenant: str | None = None, after: tuple[str, str] | None = None, limit: int | None = None
    ) -> list[SessionRecord]:
        """Return the sessions of a tenant or of all, the newest first; those ``after`` a time of making and an id."""
        query = newest_first(_sessions, after, limit)
        if tenant is not None:
            query = query.where(_sessions.c.tenant == tenant)
        return [as_record(SessionRecord, _sessions, row) for row in await self._all(query)]

    async def see_session(self, session_id: str, at: datetime) -> None:
        """Note that a session is used."""
        await self._count(update(_sessions).where(_sessions.c.id == session_id).values(seen_at=at))

    async def end_session(self, session_id: str, at: datetime) -> SessionRecord | None:
        """End a session unless it was, and return it as it is then; None when absent."""
        change = update(_sessions).where(_sessions.c.id == session_id)
        now = literal(at, _sessions.c.ended_at.type)
        row = await self._write(change.values(ended_at=func.coalesce(_sessions.c.ended_at, now)).returning(_sessions))
        return None if row is None else as_record(SessionRecord, _sessions, row)

    async def remove_ended_sessions(self, before: str, limit: int) -> int:
        """Delete up to ``limit`` sessions whose time was over before a time, and return how many."""
        first = select(_sessions.c.id).where(_sessions.c.expires_at < before)
        first = first.order_by(_sessions.c.expires_at).limit(limit)
        return await self._count(delete(_sessions).where(_sessions.c.id.in_(first)))
