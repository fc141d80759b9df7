"""Whoever administers, by a token or at the console, and what."""

from __future__ import annotations

from dataclasses import dataclass

from keystead.access.callers import Caller
from keystead.errors import ForbiddenError
from keystead.manager.manager import KeyManager
from keystead.server.service import Service


@dataclass(frozen=True, slots=True)
class Admin:
    """Whoever administers, and what."""

    service: Service
    by: Caller

    @property
    def manager(self) -> KeyManager:
        """The manager of the store."""
        return self.service.manager

    @property
    def tenant(self) -> str | None:
        """The tenant that the caller is confined to; None where it administers the whole store."""
        return self.by.principal.tenant or None


def tenant_of(by: Admin, named: str | None) -> str | None:
    """Return the tenant that is meant; None for all of them.

    Raises:
        ForbiddenError: another one than the caller's.
    """
    if by.tenant is not None and named not in (None, by.tenant):
        raise ForbiddenError("this is of another tenant")
    return by.tenant or named
