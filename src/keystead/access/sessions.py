"""Sessions of people at the console: begun by a token or an issuer's word, shown by a cookie, ended within seconds.

Spec: docs/spec/console-session-v1.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from keystead.access.callers import Caller, allowed_by
from keystead.access.codes import Codes
from keystead.access.remembered import Remembered
from keystead.access.removal import remove_all
from keystead.access.token_text import (
    ID_SIZE,
    SECRET_SIZE,
    SESSION_PREFIX,
    TokenParts,
    form_code,
    parse_token,
    session_code,
    token_text,
)
from keystead.access.tokens import Tokens
from keystead.errors import KeyNotFoundError, UnauthenticatedError
from keystead.model import Principal, SecretText, utc_text
from keystead.ports import AuditEvent, AuditTrail, Clock, KeyStore, Random, SessionRecord, UnitOfWork

LONGEST: Final = timedelta(hours=12)
"""How long a session is good, however much it is used."""
IDLE: Final = timedelta(minutes=30)
"""How long it is good while it is not used."""
_SEEN: Final = timedelta(minutes=1)
"""How exactly its last use is known."""
KEPT: Final = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Session:
    """A session as its cookie shows it.

    Attributes:
        form: what a form shows that it is of this session.
    """

    id: str
    caller: Caller
    form: str
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class NewSession:
    """A session that was begun: its text is the value of the cookie, and is not to be had again."""

    text: SecretText
    row: SessionRecord


class Sessions:
    """The sessions of a store.

    Args:
        tokens: whose tokens begin sessions, and whose codes these have.
    """

    def __init__(self, store: KeyStore, tokens: Tokens, *, audit: AuditTrail, clock: Clock, random: Random) -> None:
        self._store = store
        self._tokens = tokens
        self._codes: Codes = tokens.codes
        self._audit = audit
        self._clock = clock
        self._random = random
        self._good: Remembered[Session] = Remembered(clock)

    async def begin_by_token(self, text: str) -> NewSession:
        """Begin a session of whoever shows a token; it ends with the token at the latest.

        Raises:
            UnauthenticatedError: the token is not good.
            StoreRestoredError: the store must be recovered first.
        """
        caller = await self._tokens.authenticate(text)
        parts = parse_token(text)
        if parts is None:
            raise UnauthenticatedError
        token = await self._tokens.get(parts.id)
        ends = None if token.expires_at is None else datetime.fromisoformat(token.expires_at)
        return await self.begin(caller, ends=ends, token_id=token.id)

    async def begin(self, caller: Caller, *, ends: datetime | None = None, token_id: str | None = None) -> NewSession:
        """Begin a session of somebody who has shown who it is; errors as ``begin_by_token``."""
        key_id, key = self._codes.active()
        now = self._clock.now()
        parts = TokenParts(self._random(ID_SIZE).hex(), self._random(SECRET_SIZE))
        row = SessionRecord(
            id=parts.id,
            subject=caller.principal.user,
            tenant=caller.principal.tenant,
            scopes=" ".join(sorted((*caller.scopes, *caller.transit.scopes))),
            origin=caller.origin,
            token_id=token_id,
            is_audited_each=caller.is_audited_each,
            created_at=utc_text(now),
            expires_at=utc_text(min(now + LONGEST, ends or now + LONGEST)),
            key_id=key_id,
            code=b"",
            seen_at=now,
        )
        row = row.with_code(session_code(key, row, parts.secret))
        async with self._store.transaction() as work:
            await self._audit.record(work, _event("session.begin", row))
            await work.add_session(row)
        return NewSession(SecretText(token_text(parts, SESSION_PREFIX)), row)

    async def authenticate(self, text: str) -> Session:
        """Return the session that a cookie shows, and note that it is used.

        Raises:
            UnauthenticatedError: there is none, or it has ended; why is not told.
            KMSError: it could not be found out.
        """
        if (known := self._good.get(text)) is not None:
            return known
        parts, now = parse_token(text, SESSION_PREFIX), self._clock.now()
        if parts is None:
            raise UnauthenticatedError
        async with self._store.reading() as work:
            row = await work.find_session(parts.id)
            if row is None or not await _is_open(work, row, now):
                raise UnauthenticatedError
        if not await self._codes.fit(row, lambda key: session_code(key, row, parts.secret)):
            raise UnauthenticatedError
        if now - row.seen_at >= _SEEN:
            async with self._store.transaction() as work:
                await work.see_session(row.id, now)
        scopes, transit = allowed_by(row.scopes.split(" "))
        caller = Caller(Principal(row.subject, row.tenant), scopes, row.origin, transit, row.is_audited_each)
        found = Session(row.id, caller, form_code(parts.secret), datetime.fromisoformat(row.expires_at))
        self._good.keep(text, found, row.expires_at)
        return found

    async def all(
        self, *, tenant: str | None = None, after: tuple[str, str] | None = None, limit: int | None = None
    ) -> list[SessionRecord]:
        """Return the sessions, newest first, ended ones among them; ``after`` as ``Tokens.all``."""
        async with self._store.reading() as work:
            return await work.sessions(tenant=tenant, after=after, limit=limit)

    async def end(self, session_id: str, *, tenant: str | None = None) -> SessionRecord:
        """End a session, on every node within seconds. One that was ended stays so.

        Args:
            tenant: of this tenant; None for any.

        Raises:
            KeyNotFoundError: there is none of this id.
        """
        async with self._store.transaction() as work:
            before = await work.find_session(session_id)
            row = None
            if before is not None and tenant in (None, before.tenant):
                row = await work.end_session(session_id, self._clock.now())
            if before is None or row is None:
                raise KeyNotFoundError("no session of this id; it may have ended a day ago")
            if before.ended_at is None:
                await self._audit.record(work, _event("session.end", row))
        self._good.clear()
        return row

    async def upkeep(self) -> int:
        """Remove sessions whose time was over a day ago: return how many."""
        before = utc_text(self._clock.now() - KEPT)
        return await remove_all(self._store, lambda work, most: work.remove_ended_sessions(before, most))


async def _is_open(work: UnitOfWork, row: SessionRecord, now: datetime) -> bool:
    if row.ended_at is not None or row.expires_at <= utc_text(now) or now - row.seen_at > IDLE:
        return False
    if row.token_id is None:
        return True
    token = await work.find_token(row.token_id)
    return token is not None and token.revoked_at is None


def _event(action: str, row: SessionRecord) -> AuditEvent:
    details = {"session": row.id, "user": row.subject, "tenant": row.tenant, "origin": row.origin}
    return AuditEvent(action, details=details)
