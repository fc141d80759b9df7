"""How often each key pair has decrypted: gathered in the process, and written for many at a time."""

from __future__ import annotations

import asyncio
from collections import Counter
from datetime import datetime

from keystead.devices.surroundings import Surroundings


class UseCounts:
    """Counts that are not written yet. What ``flush`` could not write is written by the next one."""

    def __init__(self, surroundings: Surroundings) -> None:
        self._s = surroundings
        self._counts: Counter[str] = Counter()
        self._last: datetime | None = None
        self._writing = asyncio.Lock()

    def note(self, key_id: str) -> None:
        """Count one use."""
        self._counts[key_id] += 1
        self._last = self._s.clock.now()

    async def flush(self) -> None:
        """Write what was counted.

        Raises:
            StorageOperationError: it could not be written, and stays counted here.
        """
        async with self._writing:
            counts, self._counts = self._counts, Counter()
            if not counts or self._last is None:
                return
            try:
                async with self._s.store.transaction() as work:
                    await work.note_client_key_uses(counts, self._last)
            except BaseException:
                self._counts.update(counts)
                raise
