"""Who calls."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Principal:
    """Who calls: a user, and the tenant, an empty text where there is none.

    Attributes:
        behind: another user of the tenant, who acts for this one; empty where the user acts. It allows nothing.
    """

    user: str
    tenant: str = ""
    behind: str = field(default="", compare=False)

    def details(self) -> dict[str, str]:
        """Return how an audit entry names them."""
        named = {"user": self.user, "tenant": self.tenant}
        return {**named, "behind": self.behind} if self.behind else named
