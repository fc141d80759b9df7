"""Locks on secrets of users, as who may reset secrets sees them and ends them."""

from __future__ import annotations

from datetime import datetime
from typing import Final

from keystead.devices.attempts import Lockout
from keystead.devices.surroundings import Surroundings
from keystead.errors import KeyNotFoundError
from keystead.model import Principal
from keystead.ports import AuditEvent, CredentialRecord, Detail, SecretKind, UnitOfWork

NAMES: Final = {SecretKind.PASSCODE: "passcode", SecretKind.TRANSACTION_PIN: "PIN"}


class Lockouts:
    """Secrets of a tenant that are locked now.

    Args:
        rule: by which secrets are locked.
    """

    def __init__(self, surroundings: Surroundings, rule: Lockout) -> None:
        self._s = surroundings
        self.rule = rule

    async def all(
        self, who: Principal, *, after: tuple[datetime, str, str] | None = None, limit: int = 1000
    ) -> list[CredentialRecord]:
        """Return locked secrets of the caller's tenant, those first whose lock is over first."""
        async with self._s.store.reading() as work:
            return await work.locked_credentials(who.tenant, self._s.clock.now(), after=after, limit=limit)

    async def get(self, who: Principal, user: str, kind: SecretKind) -> CredentialRecord:
        """Return a locked secret of a user of the caller's tenant.

        Raises:
            KeyNotFoundError: it is not locked, or not any more.
        """
        async with self._s.store.reading() as work:
            return await self._locked(work, who, user, kind)

    async def release(self, who: Principal, user: str, kind: SecretKind) -> CredentialRecord:
        """End a lock and forgive what has failed, so that the user may try at once; return the secret as it was.

        The secret itself stays. Errors as ``get``.
        """
        async with self._s.store.transaction() as work:
            locked = await self._locked(work, who, user, kind)
            if not await work.release_credential(who.tenant, user, kind, now=self._s.clock.now()):
                raise _not_locked(user, kind)
            details: dict[str, Detail] = {"kind": kind.value, "released": user, "failures": locked.failures}
            await self._s.audit.record(work, AuditEvent("secret.release", details={**details, **who.details()}))
        return locked

    async def _locked(self, work: UnitOfWork, who: Principal, user: str, kind: SecretKind) -> CredentialRecord:
        found = await work.find_credential(who.tenant, user, kind)
        if found is None or found.locked_until is None or found.locked_until <= self._s.clock.now():
            raise _not_locked(user, kind)
        return found


def _not_locked(user: str, kind: SecretKind) -> KeyNotFoundError:
    return KeyNotFoundError(f"the {NAMES[kind]} of {user!r} is not locked, or not any more: it may be tried")
