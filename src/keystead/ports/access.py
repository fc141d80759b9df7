"""What the store keeps of API tokens, of the roles that programs get them by, and of people's sessions."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from typing import Protocol


class Made(Protocol):
    """A row of a list whose newest comes first."""

    @property
    def created_at(self) -> str:
        """When it was made."""

    @property
    def id(self) -> str:
        """Its id."""


@dataclass(frozen=True, slots=True)
class TokenRecord:
    """A token without its secret. Spec: docs/spec/api-token-v1.md.

    Attributes:
        scopes: names in ascending order, one space between.
        created_at, expires_at: the texts that the code is over.
        key_id: the data key that the code is under.
        role_id: the role that it was got by; None for one that was made by itself, which has none of what follows.
        ttl_s: for how long it was made, and is renewed where nothing else is said; seconds.
        ends_by: until when it can be renewed; None if it cannot.
        uses, used: how often it can be shown, None for any number, and how often it was.
        is_audited_each: whether each operation is audited by itself.
    """

    id: str
    subject: str
    tenant: str
    scopes: str
    label: str
    created_at: str
    expires_at: str | None
    key_id: int
    code: bytes
    revoked_at: datetime | None = None
    role_id: str | None = None
    ttl_s: int | None = None
    ends_by: str | None = None
    uses: int | None = None
    used: int = 0
    is_audited_each: bool = False

    def with_code(self, code: bytes) -> TokenRecord:
        """Return the record with its code."""
        return replace(self, code=code)


class RoleKind(StrEnum):
    """How programs show that they are of a role."""

    APPROLE = "approle"
    JWT = "jwt"


@dataclass(frozen=True, slots=True)
class RoleRecord:
    """A role. Spec: docs/spec/access-role-v1.md.

    Attributes:
        scopes: those of its tokens, as a token's.
        rules: how its tokens are got and what they are, as JSON.
        key_id, code: as a token's; the code is over all else.
    """

    id: str
    kind: RoleKind
    tenant: str
    name: str
    scopes: str
    rules: str
    created_at: str
    key_id: int
    code: bytes

    def with_code(self, code: bytes) -> RoleRecord:
        """Return the record with its code."""
        return replace(self, code=code)


@dataclass(frozen=True, slots=True)
class SecretIdRecord:
    """A secret id of a role, without its secret.

    Attributes:
        uses, used: how many logins it is good for, and how many it was used for.
        key_id, code: as a token's; the code is over all else but ``used``.
    """

    id: str
    role_id: str
    created_at: str
    expires_at: str
    uses: int
    key_id: int
    code: bytes
    used: int = 0

    def with_code(self, code: bytes) -> SecretIdRecord:
        """Return the record with its code."""
        return replace(self, code=code)


class RoleRows(Protocol):
    """Roles and their secret ids."""

    async def add_role(self, role: RoleRecord) -> None:
        """Insert a role; ``ConflictError`` where its tenant has one of this kind and name."""

    async def find_role(self, role_id: str, *, locks: bool = False) -> RoleRecord | None:
        """Return a role by its id; with ``locks`` nobody deletes it before the transaction ends."""

    async def find_role_named(self, kind: RoleKind, tenant: str, name: str) -> RoleRecord | None:
        """Return a role by its name."""

    async def roles(
        self,
        kind: RoleKind | None = None,
        *,
        tenant: str | None = None,
        after: tuple[str, str] | None = None,
        limit: int | None = None,
    ) -> list[RoleRecord]:
        """Return the roles of a kind or of all, of a tenant or of all, in order as tokens are."""

    async def remove_role(self, role_id: str, at: datetime) -> int | None:
        """Delete a role with its secret ids and revoke its tokens: return how many those were; None when absent."""

    async def add_secret_id(self, secret_id: SecretIdRecord) -> None:
        """Insert a secret id."""

    async def find_secret_id(self, secret_id: str) -> SecretIdRecord | None:
        """Return a secret id by its id."""

    async def secret_ids(
        self, role_id: str, *, after: tuple[str, str] | None = None, limit: int | None = None
    ) -> list[SecretIdRecord]:
        """Return the secret ids of a role, in order as tokens are."""

    async def use_secret_id(self, secret_id: str, uses: int) -> bool:
        """Count a use; False, and nothing is counted, if it was used so often already or is absent."""

    async def remove_secret_id(self, secret_id: str) -> bool:
        """Delete a secret id; False when absent."""

    async def remove_ended_secret_ids(self, now: str) -> int:
        """Delete the secret ids whose time is over, and return how many."""

    async def count_roles(self, key_id: int) -> int:
        """Return how many roles and secret ids have their code under a data key."""


class TokenRows(Protocol):
    """API tokens."""

    async def add_token(self, token: TokenRecord) -> None:
        """Insert a token."""

    async def find_token(self, token_id: str) -> TokenRecord | None:
        """Return a token by its id."""

    async def tokens(
        self, *, tenant: str | None = None, after: tuple[str, str] | None = None, limit: int | None = None
    ) -> list[TokenRecord]:
        """Return the tokens of a tenant or of all, the newest first; those ``after`` a time of making and an id."""

    async def revoke_token(self, token_id: str, at: datetime) -> TokenRecord | None:
        """Revoke a token unless it was, and return it as it is then; None when absent."""

    async def use_token(self, token_id: str, uses: int) -> bool:
        """Count a use; False, and nothing is counted, if it was used so often already, was revoked or is absent."""

    async def renew_token(self, renewed: TokenRecord, *, was: str) -> bool:
        """Give a token another end and code; False if it does not end when it ``was`` to any more, or was revoked."""

    async def remove_ended_tokens(self, before: str, limit: int) -> int:
        """Delete up to ``limit`` tokens that were got by roles and ended before a time, and return how many."""

    async def count_tokens(self, key_id: int) -> int:
        """Return how many tokens that were not revoked have their code under a data key."""


@dataclass(frozen=True, slots=True)
class SessionRecord:
    """Somebody's session at the console, without its secret. Spec: docs/spec/console-session-v1.md.

    Attributes:
        scopes: as a token's.
        origin: what showed who it is: ``token <id>`` or ``issuer <url>``.
        token_id: the token that it was begun by, and ends with; None where it was the issuer.
        created_at, expires_at: the texts that the code is over.
        key_id, code: as a token's; the code is over all else but ``seen_at`` and ``ended_at``.
        seen_at: when it was last used, to the minute.
    """

    id: str
    subject: str
    tenant: str
    scopes: str
    origin: str
    token_id: str | None
    is_audited_each: bool
    created_at: str
    expires_at: str
    key_id: int
    code: bytes
    seen_at: datetime
    ended_at: datetime | None = None

    def with_code(self, code: bytes) -> SessionRecord:
        """Return the record with its code."""
        return replace(self, code=code)


class SessionRows(Protocol):
    """Sessions of people at the console."""

    async def add_session(self, session: SessionRecord) -> None:
        """Insert a session."""

    async def find_session(self, session_id: str) -> SessionRecord | None:
        """Return a session by its id."""

    async def sessions(
        self, *, tenant: str | None = None, after: tuple[str, str] | None = None, limit: int | None = None
    ) -> list[SessionRecord]:
        """Return the sessions of a tenant or of all, in order as tokens are."""

    async def see_session(self, session_id: str, at: datetime) -> None:
        """Note that a session is used."""

    async def end_session(self, session_id: str, at: datetime) -> SessionRecord | None:
        """End a session unless it was, and return it as it is then; None when absent."""

    async def remove_ended_sessions(self, before: str, limit: int) -> int:
        """Delete up to ``limit`` sessions whose time was over before a time, and return how many."""
