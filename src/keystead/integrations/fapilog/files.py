"""When the files of a sealed sink end by time, and which of those that ended are removed, on the record."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Final

from keystead.errors import KMSError
from keystead.ledger.reading.files import LogFiles
from keystead.runtime import fork

if TYPE_CHECKING:
    from pathlib import Path

    from keystead.integrations.fapilog.alarm import Alarm
    from keystead.integrations.fapilog.settings import SinkSettings
    from keystead.ledger import SealedFile

LOOK_AFTER_S: Final = 1.0


class FileKeeper:
    """Ends files by time and removes old ones, when it is asked to look. What is removed leaves a signed record."""

    def __init__(
        self, interval_s: float | None, max_files: int | None, max_total_bytes: int | None, alarm: Alarm
    ) -> None:
        self._interval_s = interval_s
        self._max_files = max_files
        self._max_total_bytes = max_total_bytes
        self._alarm = alarm
        self._look_at = 0.0
        self._ends_at = None if interval_s is None else time.monotonic() + interval_s
        self._renew_lock()
        fork.in_child(self._renew_lock)

    @classmethod
    def of(cls, settings: SinkSettings, alarm: Alarm) -> FileKeeper | None:
        """Return the keeper that a sink needs, None where it needs none."""
        limits = settings.interval_s, settings.max_files, settings.max_total_bytes
        return None if limits == (None, None, None) else cls(*limits, alarm)

    def look(self, file: SealedFile) -> None:
        """Do what is due, unless another thread is at it. Blocks; raises nothing."""
        now = time.monotonic()
        if now < self._look_at or not self._lock.acquire(blocking=False):
            return
        try:
            self._look_at = now + LOOK_AFTER_S
            if self._ends_at is not None and self._interval_s is not None and now >= self._ends_at:
                self._ends_at = now + self._interval_s
                file.rotate()
            if old := self._too_many(LogFiles(file.path).ended()):
                file.retire(old, self._reason())
        except KMSError as exc:
            self._alarm.say(f"its old files cannot be looked after: {exc}", exc.code)
        finally:
            self._lock.release()

    def _too_many(self, ended: dict[int, Path]) -> list[int]:
        """Return the numbers of the oldest files, as many as are too many."""
        numbers = list(ended)
        kept = len(numbers) if self._max_files is None else self._max_files
        first = max(0, len(numbers) - kept)
        if self._max_total_bytes is not None:
            sizes = [_size(ended[number]) for number in numbers]
            while sum(sizes[first:]) > self._max_total_bytes:
                first += 1
        return numbers[:first]

    def _reason(self) -> str:
        limits = {"max_files": self._max_files, "max_total_bytes": self._max_total_bytes}
        return ", ".join(f"{name}={limit}" for name, limit in limits.items() if limit is not None)

    def _renew_lock(self) -> None:
        self._lock = threading.Lock()


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0
