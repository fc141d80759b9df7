"""One request to the GraphQL door, as its operations see it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from keystead.access.callers import Caller, Scope
from keystead.devices.assembly import Devices
from keystead.server.service import Service


@dataclass(slots=True)
class Request:
    """A request.

    Attributes:
        told: what is answered beside the data, by documented clients unnoticed.
    """

    service: Service
    by: Caller
    told: dict[str, Any] = field(default_factory=dict)

    @property
    def devices(self) -> Devices:
        """The devices' room."""
        return self.service.devices

    def caller(self, *scopes: Scope) -> Caller:
        """Return who calls, if it has one of the scopes.

        Raises:
            ForbiddenError: it has none of them.
        """
        self.by.require(*scopes)
        return self.by

    def tell(self, code: str, retry_after_s: float | None) -> None:
        """Say why the answer is no, beside it."""
        self.told = {"code": code} if retry_after_s is None else {"code": code, "retryAfter": retry_after_s}
