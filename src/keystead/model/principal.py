"""Who calls."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Principal:
    """Who calls: a user, and the tenant, an empty text where there is none."""

    user: str
    tenant: str = ""

    def details(self) -> dict[str, str]:
        """Return how an audit entry names them."""
        return {"user": self.user, "tenant": self.tenant}
