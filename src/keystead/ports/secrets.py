"""What the store keeps of the passcodes and PINs of users, and of the ciphertexts that brought them."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from keystead.ports.audit import AuditEntryRow
    from keystead.ports.devices import ClientKeyRecord


class SecretKind(StrEnum):
    """The two secrets of a user, which have nothing to do with each other."""

    PASSCODE = "passcode"
    TRANSACTION_PIN = "transaction_pin"


@dataclass(frozen=True, slots=True)
class CredentialRecord:
    """A secret of a user of a tenant, an empty text where there is none.

    Attributes:
        hash: what is stored of it, by docs/spec/secret-hash-v1.md, under the pepper ``pepper_id``; both None while
            it was not set.
        counted: attempts ever made.
        cleared: of these, how many from the first on are forgiven; the others are failures.
        locked_until: until when none is made.
        verified_at: when the secret was last given.
    """

    tenant: str
    user_id: str
    kind: SecretKind
    hash: str | None = None
    pepper_id: int | None = None
    counted: int = 0
    cleared: int = 0
    locked_until: datetime | None = None
    verified_at: datetime | None = None
    set_at: datetime | None = None

    @property
    def failures(self) -> int:
        """Attempts that are not forgiven."""
        return self.counted - self.cleared


class CredentialRows(Protocol):
    """Secrets of users."""

    async def find_credential(self, tenant: str, user_id: str, kind: SecretKind) -> CredentialRecord | None:
        """Return a secret of a user."""

    async def count_attempt(
        self, tenant: str, user_id: str, kind: SecretKind, *, now: datetime
    ) -> CredentialRecord | None:
        """Count an attempt on a secret, and return it with that; None where it is locked.

        Nobody else counts one before the transaction ends. A user who has no such secret gets a row.
        """

    async def lock_credential(self, tenant: str, user_id: str, kind: SecretKind, *, until: datetime) -> None:
        """Have no attempt made until a time."""

    async def locked_credentials(
        self, tenant: str, now: datetime, *, after: tuple[datetime, str, str] | None = None, limit: int
    ) -> list[CredentialRecord]:
        """Return a page of a tenant's secrets that are locked now, those first whose lock is over first.

        Args:
            after: until when it is locked, user and kind of the last one before.
        """

    async def release_credential(self, tenant: str, user_id: str, kind: SecretKind, *, now: datetime) -> bool:
        """End a lock, and forgive every attempt; False where it is not locked."""

    async def clear_attempts(
        self, credential: CredentialRecord, *, below: int, verified_at: datetime, renewed: tuple[str, int] | None = None
    ) -> bool:
        """Forgive the attempts up to that which ``credential`` counted; False if its hash was replaced meanwhile.

        Args:
            below: with fewer failures left it is no longer locked.
            renewed: a hash of the same secret under another pepper or cost, and its pepper's id.
        """

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

    async def drop_credentials(self, tenant: str, user_id: str) -> int:
        """Remove a user's secrets; return how many."""

    async def count_credentials(self, pepper_id: int) -> int:
        """Return how many hashes are under a pepper."""


class SpentCiphertextRows(Protocol):
    """Ciphertexts that have succeeded, and do not once more."""

    async def spend(self, key_id: str, digest: bytes, *, until: datetime) -> bool:
        """Remember a ciphertext until a time; False where it was already."""

    async def drop_spent(self, before: datetime, *, limit: int) -> int:
        """Forget those whose time is over; return how many, ``limit`` at most."""

    async def drop_spent_of(self, key_ids: Collection[str]) -> None:
        """Forget those of key pairs."""


class SecretWrites(Protocol):
    """The two writes of a verification, each in a transaction that has no other: ``transaction(once=True)``."""

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
        """Count an attempt on a secret, with its entry in the audit trail, and return it with that.

        None, and nothing is written, where there is no such secret, where it is locked, and where ``below`` attempts
        or more would have failed; also where the pair it was encrypted to is not as ``given`` any more, and where the
        ciphertext has succeeded.

        Args:
            given: the key pair, and the ciphertext's SHA-256.
        """

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

        False, and nothing is forgiven, if the secret's hash was replaced meanwhile; the ciphertext may be remembered.

        Args:
            below: with fewer failures left it is no longer locked.
            spent: the ciphertext's key pair, its SHA-256, and until when it is remembered.

        Raises:
            ReplayedError: the ciphertext has succeeded already, and nothing is forgiven.
        """
