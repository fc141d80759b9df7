"""Passcodes and PINs of users: set, changed and verified, with a count of the guesses that no way leads around.

A guess is counted, and the count is committed, before anything is compared; a success then forgives what was counted
up to it. So of any number of guesses at the same time, on any number of nodes, no more are compared than are free.
Spec of what is stored: docs/spec/secret-hash-v1.md.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from functools import partial
from typing import Final

from keystead import telemetry
from keystead.crypto.keyring import Keyring
from keystead.devices.attempts import Lockout
from keystead.devices.decrypting import JUNK, Decrypting, Encrypted, Opened
from keystead.devices.hashing import Cost, Owner, SecretHash, hash_secret
from keystead.devices.lockouts import NAMES
from keystead.devices.payloads import Operation
from keystead.devices.policy import SecretPolicy
from keystead.devices.surroundings import Surroundings
from keystead.errors import ConflictError, ForbiddenError, KeyExpiredError, LockedError, ReplayedError
from keystead.model import Principal
from keystead.ports import AuditEntryRow, AuditEvent, CredentialRecord, SecretKind, UnitOfWork, WritesAtOnce
from keystead.runtime.off_loop import Threads

PEPPER_KEYRING: Final = "keystead.pepper"

_HASHING: Final = "keystead.argon2id"
_SETS: Final = {SecretKind.PASSCODE: Operation.SET_PASSCODE, SecretKind.TRANSACTION_PIN: Operation.SET_PIN}
_VERIFIES: Final = {SecretKind.PASSCODE: Operation.VERIFY_PASSCODE, SecretKind.TRANSACTION_PIN: Operation.VERIFY_PIN}


class Authority(StrEnum):
    """What lets somebody replace a secret that is set, besides knowing it."""

    NONE = "none"
    RESET = "reset"
    """A scope that allows it; it also ends a lock."""
    DEVELOPMENT = "development"
    """Anybody may, as under ``--dev``."""


class Reason(StrEnum):
    """Why a verification came out as it did."""

    VERIFIED = "VERIFIED"
    WRONG = "WRONG"
    LOCKED = "LOCKED"
    NOT_SET = "NOT_SET"
    REPLAYED = "REPLAYED"
    KEY_EXPIRED = "KEY_EXPIRED"
    DECRYPTION_FAILED = "DECRYPTION_FAILED"


_REASONS: Final = {ReplayedError.code: Reason.REPLAYED, KeyExpiredError.code: Reason.KEY_EXPIRED}


@dataclass(frozen=True, slots=True)
class Verdict:
    """What came out of a verification; ``retry_after_s`` is when the next is allowed, where it is locked."""

    reason: Reason
    retry_after_s: float | None = None

    @property
    def is_right(self) -> bool:
        """Whether it was the secret."""
        return self.reason is Reason.VERIFIED


@dataclass(frozen=True, slots=True)
class SecretRules:
    """What is asked of secrets, and of who gives them.

    Attributes:
        policy: for new ones.
        lockout: after wrong ones.
        cost: of a hash.
        recent: for how long after a verification a secret may be changed without giving it again.
        hashes: that are computed at a time; 0 for one on each core.
    """

    policy: SecretPolicy = field(default_factory=SecretPolicy)
    lockout: Lockout = field(default_factory=Lockout)
    cost: Cost = field(default_factory=Cost)
    recent: timedelta = timedelta(minutes=5)
    hashes: int = 0


class Secrets:
    """Keeps the secrets of users.

    Args:
        pepper: the keyring whose keys are the peppers.
    """

    def __init__(
        self, surroundings: Surroundings, decrypting: Decrypting, pepper: Keyring, rules: SecretRules | None = None
    ) -> None:
        self._s = surroundings
        # Asked once: it takes as long as a statement.
        self._at_once = surroundings.store if isinstance(surroundings.store, WritesAtOnce) else None
        self._decrypting = decrypting
        self._pepper = pepper
        self._rules = rules or SecretRules()
        self._hashers = Threads("keystead-hash", self._rules.hashes or os.cpu_count() or 1)
        self.evaluated = 0
        """How many guesses were really compared with a hash, in this process."""

    def check(self) -> None:
        """Raise what stands in the way of secrets: no pepper, or a KMS that is away for too long."""
        self._pepper.copy_active()

    async def set(
        self,
        who: Principal,
        kind: SecretKind,
        encrypted: Encrypted,
        *,
        current: Encrypted | None = None,
        authority: Authority = Authority.NONE,
    ) -> None:
        """Set a secret for the first time, or change it.

        Args:
            current: the secret that is to be replaced; it is not needed where that was verified a moment ago.

        Raises:
            KMSError: as ``Decrypting.open``.
            InvalidInputError: the policy does not take this secret; the message tells the rule.
            ForbiddenError: a change, and ``current`` is missing or wrong.
            LockedError: a change, and the secret is locked.
            ConflictError: it was changed by somebody else at the same moment.
        """
        opened = await self._decrypting.open(who, encrypted, _SETS[kind])
        self._rules.policy.check(kind, opened.secret)
        async with self._s.store.reading(once=True) as work:
            before = await work.find_credential(who.tenant, who.user, kind)
        spent = [opened]
        if before is None or before.hash is None:
            why = "first"
        elif authority is not Authority.NONE:
            why = authority.value
        elif current is not None:
            given = await self._decrypting.open(who, current, _SETS[kind])
            before = await self._attempt(who, kind, given)
            if not await self._is_right(before, _stored(before), given.secret):
                raise ForbiddenError(f"the current {NAMES[kind]} is another one")
            spent.append(given)
            why = "current"
        else:
            self._require_recent(before)
            why = "recent"
        hashed = await self._hash(who, kind, opened.secret)
        async with self._s.store.transaction() as work:
            for each in spent:
                await _spend(work, each)
            await self._s.audit.record(work, _event("secret.set", who, kind, opened, authority=why))
            kept = await work.set_credential(
                who.tenant,
                who.user,
                kind,
                hashed=hashed,
                at=self._s.clock.now(),
                instead_of=None if before is None else before.hash,
            )
            if not kept:
                raise ConflictError(f"the {NAMES[kind]} was changed at the same moment; try again")

    async def verify(self, who: Principal, kind: SecretKind, encrypted: Encrypted) -> Verdict:
        """Return whether a secret is the one that was set.

        Raises:
            RateLimitedError: this user has sent too much that did not decrypt.
            KMSError: the guess could not be counted, and nothing was compared; or it could not be compared.
        """
        counted: CredentialRecord | None = None
        is_tried = False

        async def count(opened: Opened) -> bool:
            nonlocal counted, is_tried
            counted, is_tried = await self._attempt_at_once(who, kind, opened), True
            return counted is not None

        try:
            confirms = self._at_once is not None and self._at_once.may_write_at_once
            opened = await self._decrypting.open(who, encrypted, _VERIFIES[kind], confirm=count if confirms else None)
        except JUNK as exc:
            return Verdict(_REASONS.get(exc.code, Reason.DECRYPTION_FAILED))
        try:
            if counted is None:
                counted = await self._attempt(who, kind, opened, is_tried=is_tried)
        except LockedError as exc:
            return Verdict(Reason.LOCKED, exc.retry_after_s)
        stored = _stored(counted)
        if not await self._is_right(counted, stored, opened.secret) or stored is None:
            return Verdict(Reason.NOT_SET if stored is None else Reason.WRONG)
        try:
            return await self._succeed(who, counted, stored, opened)
        except ReplayedError:
            return Verdict(Reason.REPLAYED)

    async def _succeed(self, who: Principal, counted: CredentialRecord, stored: SecretHash, opened: Opened) -> Verdict:
        """Forgive the attempts up to this one; a secret that was replaced meanwhile is wrong."""
        is_current = self._pepper.snapshot.active in (None, stored.pepper_id) and stored.cost == self._rules.cost
        event, free = _event("secret.verify", who, counted.kind, opened), self._rules.lockout.free
        if is_current and self._at_once is not None:

            async def forgive(work: UnitOfWork, entry: AuditEntryRow) -> bool:
                spent, now = (opened.key.id, opened.digest, opened.until), self._s.clock.now()
                return await work.forgive_attempts(counted, below=free, verified_at=now, spent=spent, entry=entry)

            if (is_kept := await self._at_once.write_at_once(event, forgive)) is not None:
                return Verdict(Reason.VERIFIED if is_kept else Reason.WRONG)
        renewed = None if is_current else await self._hash(who, counted.kind, opened.secret)
        async with self._s.store.transaction() as work:
            now = self._s.clock.now()
            if not await work.clear_attempts(counted, below=free, verified_at=now, renewed=renewed):
                return Verdict(Reason.WRONG)
            await _spend(work, opened)
            await self._s.audit.record(work, event)
        return Verdict(Reason.VERIFIED)

    async def _attempt_at_once(self, who: Principal, kind: SecretKind, opened: Opened) -> CredentialRecord | None:
        """Count an attempt, for good, where it neither finds the secret locked nor locks it; None where not.

        Most attempts are so. What was opened is looked at once more with it.
        """

        async def count(work: UnitOfWork, entry: AuditEntryRow) -> CredentialRecord | None:
            now, given = self._s.clock.now(), (opened.key, opened.digest)
            return await work.count_free_attempt(
                who.tenant, who.user, kind, given=given, now=now, below=self._rules.lockout.free, entry=entry
            )

        if self._at_once is None:
            return None
        return await self._at_once.write_at_once(_event("secret.attempt", who, kind, opened), count)

    async def _attempt(
        self, who: Principal, kind: SecretKind, opened: Opened, *, is_tried: bool = False
    ) -> CredentialRecord:
        """Count an attempt, for good, and return the secret with it.

        Args:
            is_tried: it could not be counted at once.

        Raises:
            LockedError: none is made now.
        """
        if not is_tried and (found := await self._attempt_at_once(who, kind, opened)) is not None:
            return found
        async with self._s.store.transaction() as work:
            now = self._s.clock.now()
            counted = await work.count_attempt(who.tenant, who.user, kind, now=now)
            if counted is None:
                absent = await work.find_credential(who.tenant, who.user, kind)
                raise _locked(None if absent is None else absent.locked_until, now)
            if (lock := self._rules.lockout.after(counted.failures)) is not None:
                await work.lock_credential(who.tenant, who.user, kind, until=now + lock)
            await self._s.audit.record(work, _event("secret.attempt", who, kind, opened, failures=counted.failures))
        if lock is not None:
            telemetry.secret_lockout(kind.value)
        return counted

    async def _is_right(self, counted: CredentialRecord, stored: SecretHash | None, secret: str) -> bool:
        """Return whether it is the secret; takes as long where none was set."""
        owner = Owner(counted.kind, counted.user_id, counted.tenant)
        if stored is None:
            await self._hash(Principal(owner.user, owner.tenant), owner.kind, secret)
            return False
        if stored.pepper_id not in self._pepper.snapshot.keys:
            await self._s.rings.load_keys([stored.pepper_id])
        pepper = self._pepper.get(stored.pepper_id)
        self.evaluated += 1
        with telemetry.span(_HASHING):
            is_right = await self._hashers.run(partial(stored.is_of, secret, owner, bytes(pepper.key)))
        telemetry.secret_check(is_right=is_right)
        return is_right

    async def _hash(self, who: Principal, kind: SecretKind, secret: str) -> tuple[str, int]:
        """Return a hash of a secret under the newest pepper, and the pepper's id."""
        pepper, owner = self._pepper.get_active(), Owner(kind, who.user, who.tenant)
        compute = partial(hash_secret, secret, owner, bytes(pepper.key), pepper.id, random=self._s.random)
        with telemetry.span(_HASHING):
            made = await self._hashers.run(partial(compute, cost=self._rules.cost))
        return str(made), pepper.id

    def _require_recent(self, before: CredentialRecord) -> None:
        now = self._s.clock.now()
        if before.locked_until is not None and before.locked_until > now:
            raise _locked(before.locked_until, now)
        if before.verified_at is None or now - before.verified_at > self._rules.recent:
            raise ForbiddenError(
                f"a change of the {NAMES[before.kind]} takes the current one, or a verification in the last minutes"
            )


def _stored(counted: CredentialRecord) -> SecretHash | None:
    return None if counted.hash is None else SecretHash.parse(counted.hash)


def _event(action: str, who: Principal, kind: SecretKind, opened: Opened, **more: str | int) -> AuditEvent:
    details = {"kind": str(kind), "client_key": opened.key.id, "device": opened.key.device_id, **who.details()}
    return AuditEvent(action, details={**details, **more})


def _locked(until: datetime | None, now: datetime) -> LockedError:
    wait_s = 0.0 if until is None else (until - now).total_seconds()
    return LockedError(f"locked after too many wrong ones; try again in {wait_s:.0f} seconds", retry_after_s=wait_s)


async def _spend(work: UnitOfWork, opened: Opened) -> None:
    if not await work.spend(opened.key.id, opened.digest, until=opened.until):
        raise ReplayedError
