"""Examinations of providers and store that somebody asks a running service for: one at a time."""

from __future__ import annotations

from keystead.errors import RateLimitedError
from keystead.manager.findings import DEADLINE_S, DoctorReport
from keystead.manager.manager import KeyManager


class Examinations:
    """Runs them; each asks every KMS for something, so that many at once would be a load on it."""

    def __init__(self) -> None:
        self._is_running = False

    async def run(self, km: KeyManager) -> DoctorReport:
        """Return what ``KeyManager.doctor`` finds.

        Raises:
            RateLimitedError: one is under way in this process.
        """
        if self._is_running:
            raise RateLimitedError(
                f"an examination is under way; wait until it is over, {DEADLINE_S:.0f} seconds at most",
                retry_after_s=DEADLINE_S,
            )
        self._is_running = True
        try:
            return await km.doctor()
        finally:
            self._is_running = False
