"""API tokens: made, shown once, checked at each call, and revoked."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final

from keystead.access.callers import AnyScope, Caller, allowed_by, checked_subject, is_mighty
from keystead.access.codes import Codes, LoadsKeys
from keystead.access.remembered import Remembered
from keystead.access.token_text import ID_SIZE, SECRET_SIZE, TokenParts, parse_token, token_code, token_text
from keystead.crypto.keyring import Keyring
from keystead.errors import ConflictError, InvalidInputError, KeyNotFoundError, UnauthenticatedError
from keystead.model import Act, Action, Principal, SecretText, utc_text
from keystead.ports import (
    AuditEvent,
    AuditTrail,
    Clock,
    Consent,
    Freely,
    KeyStore,
    Random,
    TokenRecord,
    UnitOfWork,
)

KEYRING: Final = "keystead.tokens"
LONGEST: Final = timedelta(days=3650)
MAX_LABEL: Final = 255


@dataclass(frozen=True, slots=True)
class Lease:
    """What a token has that was got by a role.

    Attributes:
        ttl_s: seconds that it is good for, and is renewed for.
        max_ttl_s: seconds after its making that renewals may reach; one that is not longer cannot be renewed.
        uses: how often it can be shown; None for any number.
        is_audited_each: whether each of its operations on a key is audited by itself.
    """

    role_id: str
    ttl_s: int
    max_ttl_s: int
    uses: int | None = None
    is_audited_each: bool = False


@dataclass(frozen=True, slots=True)
class NewToken:
    """A token as it is shown, once, and what is kept of it."""

    text: SecretText
    row: TokenRecord


@dataclass(frozen=True, slots=True)
class Renewal:
    """What became of a token that was to be renewed.

    Attributes:
        ttl_s: seconds until it ends.
        asked_s: seconds that were asked for, where the longest life of the token cut them; else None.
    """

    row: TokenRecord
    ttl_s: int
    asked_s: int | None


class Tokens:
    """The tokens of a store.

    Args:
        ring: the keyring ``keystead.tokens``.
    """

    def __init__(
        self,
        store: KeyStore,
        ring: Keyring,
        keys: LoadsKeys,
        *,
        audit: AuditTrail,
        clock: Clock,
        random: Random,
        consent: Consent | None = None,
    ) -> None:
        self._store = store
        self.codes: Final = Codes(ring, keys)
        self._audit = audit
        self._consent = consent or Freely()
        self._clock = clock
        self._random = random
        self._good: Remembered[Caller] = Remembered(clock)

    async def create(
        self,
        subject: str,
        scopes: Collection[AnyScope],
        *,
        tenant: str = "",
        label: str = "",
        lifetime: timedelta | None = None,
    ) -> NewToken:
        """Make a token.

        Args:
            subject: the user that whoever shows it is.
            lifetime: up to ten years; None for no end.

        Raises:
            InvalidInputError: a name or time that cannot be one, or no scope.
            StoreRestoredError: the store must be recovered first.
            ApprovalRequiredError: the store asks for two people, and the token could ask for what they approve.
        """
        made = self.new(subject, scopes, tenant=tenant, label=label, lifetime=lifetime)
        row = made.row
        details = {"token": row.id, "user": row.subject, "tenant": row.tenant, "scopes": row.scopes}
        consent = self._consent if is_mighty(scopes) else Freely()
        lifetime_s = None if lifetime is None else int(lifetime.total_seconds())
        how = {"scopes": row.scopes, "label": row.label, "lifetime_s": lifetime_s}
        act = Act(Action.TOKEN_CREATE, row.subject, how, row.tenant)
        async with consent.given(act), self._store.transaction() as work:
            await self._audit.record(work, AuditEvent("token.create", details=details))
            await work.add_token(row)
        return made

    def new(
        self,
        subject: str,
        scopes: Collection[AnyScope],
        *,
        tenant: str = "",
        label: str = "",
        lifetime: timedelta | None = None,
        lease: Lease | None = None,
    ) -> NewToken:
        """Return a token that is not in the store yet; errors as ``create``. A lease's time stands for ``lifetime``."""
        if not scopes:
            raise InvalidInputError("a token without a scope could do nothing; name at least one")
        if lease is not None:
            lifetime = timedelta(seconds=lease.ttl_s)
        if lifetime is not None and not timedelta(0) < lifetime <= LONGEST:
            raise InvalidInputError("a token lives for more than nothing, and up to ten years")
        if len(label) > MAX_LABEL or not label.isprintable():
            raise InvalidInputError(f"a label is a text of up to {MAX_LABEL} printable characters")
        now = self._clock.now()
        key_id, key = self.codes.active()
        parts = TokenParts(self._random(ID_SIZE).hex(), self._random(SECRET_SIZE))
        row = TokenRecord(
            id=parts.id,
            subject=checked_subject(subject),
            tenant=checked_subject(tenant, may_be_empty=True),
            scopes=" ".join(sorted(scopes)),
            label=label,
            created_at=utc_text(now),
            expires_at=None if lifetime is None else utc_text(now + lifetime),
            key_id=key_id,
            code=b"",
        )
        if lease is not None:
            can_be_renewed = lease.max_ttl_s > lease.ttl_s
            row = replace(
                row,
                role_id=lease.role_id,
                ttl_s=lease.ttl_s,
                ends_by=utc_text(now + timedelta(seconds=lease.max_ttl_s)) if can_be_renewed else None,
                uses=lease.uses,
                is_audited_each=lease.is_audited_each,
            )
        return NewToken(SecretText(token_text(parts)), row.with_code(token_code(key, row, parts.secret)))

    async def authenticate(self, text: str) -> Caller:
        """Return who shows a token.

        Raises:
            UnauthenticatedError: it is not good; why is not told.
            KMSError: it could not be found out.
        """
        if (known := self._good.get(text)) is not None:
            return known
        row = await self._shown(text, utc_text(self._clock.now()))
        if row.uses is not None:
            async with self._store.transaction() as work:
                if not await work.use_token(row.id, row.uses):
                    raise UnauthenticatedError
        scopes, transit = allowed_by(row.scopes.split(" "))
        caller = Caller(Principal(row.subject, row.tenant), scopes, f"token {row.id}", transit, row.is_audited_each)
        if row.uses is None:
            self._good.keep(text, caller, row.expires_at)
        return caller

    async def renew(self, text: str, increment_s: int | None = None) -> Renewal:
        """Have the token that is shown end later, or sooner: as long from now as is asked for, or as it was made for.

        Raises:
            UnauthenticatedError: it is not good.
            InvalidInputError: it cannot be renewed.
            ConflictError: it was renewed by somebody else at the same time.
        """
        parts, now = parse_token(text), self._clock.now()
        row = await self._shown(text, utc_text(now))
        if parts is None or row.ends_by is None or row.ttl_s is None or row.expires_at is None:
            raise InvalidInputError("lease is not renewable")
        asked = timedelta(seconds=min(increment_s or row.ttl_s, LONGEST.total_seconds()))
        latest = datetime.fromisoformat(row.ends_by)
        ends = min(now + asked, latest)
        key = await self.codes.key(row)
        if key is None:
            raise UnauthenticatedError
        renewed = replace(row, expires_at=utc_text(ends))
        renewed = renewed.with_code(token_code(key, renewed, parts.secret))
        async with self._store.transaction() as work:
            details = {"token": row.id, "user": row.subject, "ends": utc_text(ends)}
            await self._audit.record(work, AuditEvent("token.renew", details=details))
            if not await work.renew_token(renewed, was=row.expires_at):
                raise ConflictError("the token was renewed or revoked by somebody else meanwhile; ask again")
        self._good.forget(text)
        asked_s = round(asked.total_seconds()) if now + asked > latest else None
        return Renewal(renewed, round((ends - now).total_seconds()), asked_s)

    async def all(
        self, *, tenant: str | None = None, after: tuple[str, str] | None = None, limit: int | None = None
    ) -> list[TokenRecord]:
        """Return the tokens, newest first, revoked ones and those that have ended among them.

        Args:
            after: the time of making and the id of the last one that is known already.
        """
        async with self._store.reading() as work:
            return await work.tokens(tenant=tenant, after=after, limit=limit)

    async def get(self, token_id: str, *, tenant: str | None = None) -> TokenRecord:
        """Return a token; errors as ``revoke``."""
        async with self._store.reading() as work:
            return await _get(work, token_id, tenant)

    async def revoke(self, token_id: str, *, tenant: str | None = None) -> TokenRecord:
        """Have a token be refused, on every node within seconds. One that was revoked stays so.

        Args:
            tenant: of this tenant; None for any.

        Raises:
            KeyNotFoundError: there is none of this id.
        """
        async with self._store.transaction() as work:
            await _get(work, token_id, tenant)
            row = await work.revoke_token(token_id, self._clock.now())
            if row is None:
                raise _no_token()
            await self._audit.record(work, AuditEvent("token.revoke", details={"token": row.id, "user": row.subject}))
        self._good.clear()
        return row

    async def _shown(self, text: str, now: str) -> TokenRecord:
        """Return the row of a token that is good."""
        parts = parse_token(text)
        if parts is None:
            raise UnauthenticatedError
        async with self._store.reading(once=True) as work:
            row = await work.find_token(parts.id)
        if row is None or row.revoked_at is not None:
            raise UnauthenticatedError
        has_ended = row.expires_at is not None and row.expires_at <= now
        is_plain = row.role_id is not None or (row.uses is None and row.ends_by is None and not row.is_audited_each)
        if has_ended or not is_plain or not await self.codes.fit(row, lambda key: token_code(key, row, parts.secret)):
            raise UnauthenticatedError
        return row


async def _get(work: UnitOfWork, token_id: str, tenant: str | None) -> TokenRecord:
    row = await work.find_token(token_id)
    if row is None or tenant not in (None, row.tenant):
        raise _no_token()
    return row


def _no_token() -> KeyNotFoundError:
    return KeyNotFoundError("no token of this id; `keystead token list` shows them")
