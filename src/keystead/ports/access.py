"""What the store keeps of API tokens."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from typing import Protocol


@dataclass(frozen=True, slots=True)
class TokenRecord:
    """A token without its secret. Spec: docs/spec/api-token-v1.md.

    Attributes:
        scopes: names in ascending order, one space between.
        created_at, expires_at: the texts that the code is over.
        key_id: the data key that the code is under.
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

    def with_code(self, code: bytes) -> TokenRecord:
        """Return the record with its code."""
        return replace(self, code=code)


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

    async def count_tokens(self, key_id: int) -> int:
        """Return how many tokens that were not revoked have their code under a data key."""
