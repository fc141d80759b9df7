"""What the fake KMS tells of itself: what its callers may do, and what time it is there."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from keystead.testing.fake_kms import FakeKMS

OPERATIONS: Final = (
    "encrypt",
    "decrypt",
    "generate_data_key",
    "describe",
    "rewrap",
    "rotate_key",
    "get_rotation_policy",
    "mac",
    "verify_mac",
    "sign",
    "public_key",
)


class FakeInsight:
    """Permissions as ``deny`` left them, and a clock that may be wrong."""

    _service: FakeKMS

    async def check_permissions(self, key_id: str, *, context: Mapping[str, str] | None = None) -> Mapping[str, bool]:
        """Return which operations ``deny`` has left, under any context; it can deny this question as well."""
        await self._service.take_call("check_permissions")
        self._service.key(key_id, any_state=True)
        return {operation: not self._service.is_denied(operation) for operation in OPERATIONS}

    async def service_time(self) -> datetime:
        """Return the time of the service's clock, moved by ``clock_skew_s``."""
        await self._service.take_call("service_time")
        return self._service.clock.now() + timedelta(seconds=self._service.clock_skew_s)
