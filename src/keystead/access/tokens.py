"""API tokens: made, shown once, checked at each call, and revoked."""

from __future__ import annotations

import hmac
import logging
from collections import OrderedDict
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import timedelta
from hashlib import sha256
from typing import Final, Protocol

from keystead.access.callers import AnyScope, Caller, allowed_by, checked_subject
from keystead.access.token_text import ID_SIZE, SECRET_SIZE, TokenParts, parse_token, token_code, token_text
from keystead.crypto.keyring import Keyring
from keystead.errors import (
    DataKeyNotLoadedError,
    DecryptionError,
    InvalidInputError,
    KeyNotFoundError,
    KeyStateError,
    UnauthenticatedError,
)
from keystead.model import Principal, SecretText, utc_text
from keystead.ports import AuditEvent, AuditTrail, Clock, KeyStore, Random, TokenRecord, UnitOfWork

log = logging.getLogger("keystead.access")

KEYRING: Final = "keystead.tokens"
REMEMBERED_S: Final = 4.0
"""How long a token that was good is not looked up again; so soon a revocation holds on every node."""
REMEMBERED: Final = 4096
LONGEST: Final = timedelta(days=3650)
MAX_LABEL: Final = 255


class LoadsKeys(Protocol):
    """What loads data keys that other processes made."""

    async def load_keys(self, key_ids: Collection[int]) -> Mapping[int, Keyring]:
        """Return the keyrings that data keys are of, loaded; ids that no row has are left out."""


@dataclass(frozen=True, slots=True)
class NewToken:
    """A token as it is shown, once, and what is kept of it."""

    text: SecretText
    row: TokenRecord


class Tokens:
    """The tokens of a store.

    Args:
        ring: the keyring ``keystead.tokens``.
    """

    def __init__(
        self, store: KeyStore, ring: Keyring, keys: LoadsKeys, *, audit: AuditTrail, clock: Clock, random: Random
    ) -> None:
        self._store = store
        self._ring = ring
        self._keys = keys
        self._audit = audit
        self._clock = clock
        self._random = random
        self._good: OrderedDict[bytes, tuple[float, Caller, str | None]] = OrderedDict()

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
        """
        if not scopes:
            raise InvalidInputError("a token without a scope could do nothing; name at least one")
        if lifetime is not None and not timedelta(0) < lifetime <= LONGEST:
            raise InvalidInputError("a token lives for more than nothing, and up to ten years")
        if len(label) > MAX_LABEL or not label.isprintable():
            raise InvalidInputError(f"a label is a text of up to {MAX_LABEL} printable characters")
        now = self._clock.now()
        key = self._ring.get_active()
        parts = TokenParts(self._random(ID_SIZE).hex(), self._random(SECRET_SIZE))
        row = TokenRecord(
            id=parts.id,
            subject=checked_subject(subject),
            tenant=checked_subject(tenant, may_be_empty=True),
            scopes=" ".join(sorted(scopes)),
            label=label,
            created_at=utc_text(now),
            expires_at=None if lifetime is None else utc_text(now + lifetime),
            key_id=key.id,
            code=b"",
        )
        row = row.with_code(token_code(bytes(key.key), row, parts.secret))
        details = {"token": row.id, "user": row.subject, "tenant": row.tenant, "scopes": row.scopes}
        async with self._store.transaction() as work:
            await self._audit.record(work, AuditEvent("token.create", details=details))
            await work.add_token(row)
        return NewToken(SecretText(token_text(parts)), row)

    async def authenticate(self, text: str) -> Caller:
        """Return who shows a token.

        Raises:
            UnauthenticatedError: it is not good; why is not told.
            KMSError: it could not be found out.
        """
        digest, now = sha256(text.encode("utf-8", "surrogatepass")).digest(), utc_text(self._clock.now())
        known = self._good.get(digest)
        if known is not None and self._clock.monotonic() < known[0] and (known[2] is None or now < known[2]):
            return known[1]
        self._good.pop(digest, None)
        parts = parse_token(text)
        if parts is None:
            raise UnauthenticatedError
        async with self._store.reading(once=True) as work:
            row = await work.find_token(parts.id)
        if row is None or row.revoked_at is not None:
            raise UnauthenticatedError
        has_ended = row.expires_at is not None and row.expires_at <= now
        if has_ended or not await self._is_its(row, parts):
            raise UnauthenticatedError
        scopes, transit = allowed_by(row.scopes.split(" "))
        caller = Caller(Principal(row.subject, row.tenant), scopes, f"token {row.id}", transit)
        self._good[digest] = self._clock.monotonic() + REMEMBERED_S, caller, row.expires_at
        if len(self._good) > REMEMBERED:
            self._good.popitem(last=False)
        return caller

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

    async def _is_its(self, row: TokenRecord, parts: TokenParts) -> bool:
        if row.key_id not in self._ring.snapshot.keys:
            await self._keys.load_keys([row.key_id])
        try:
            key = bytes(self._ring.get(row.key_id).key)
        except (DataKeyNotLoadedError, DecryptionError, KeyStateError):
            log.warning("a token's key is not to be had, and so it is refused", extra={"token": row.id})
            return False
        return hmac.compare_digest(token_code(key, row, parts.secret), row.code)


async def _get(work: UnitOfWork, token_id: str, tenant: str | None) -> TokenRecord:
    row = await work.find_token(token_id)
    if row is None or tenant not in (None, row.tenant):
        raise _no_token()
    return row


def _no_token() -> KeyNotFoundError:
    return KeyNotFoundError("no token of this id; `keystead token list` shows them")
