"""Records that come while a log is being opened: a KMS may log itself, and would wait for what waits for it."""

from __future__ import annotations

import threading

from keystead.errors import StorageOperationError
from keystead.ledger.writing.open_log import OpenLog
from keystead.ledger.writing.sealer import require_payloads
from keystead.ledger.writing.writer import MAX_UNWRITTEN_BYTES


class EarlyRecords:
    """Keeps records until the log is there to take them. Thread-safe, and for code that interrupts it as well.

    Attributes:
        is_awaited: a thread opens the log just now.
    """

    def __init__(self) -> None:
        self.is_awaited = False
        self._lock = threading.RLock()
        self._records: list[bytes] = []
        self._bytes = 0
        self._log: OpenLog | None = None

    @property
    def is_empty(self) -> bool:
        """Whether none is kept."""
        return not self._records

    def append_many(self, records: list[bytes]) -> None:
        """Take records, all or none of them; errors as ``SealedFile``."""
        require_payloads(records)
        with self._lock:
            if self._log is None:
                if self._bytes > MAX_UNWRITTEN_BYTES:
                    raise StorageOperationError("the log is not open yet, and too much is waiting for it: flush it")
                self._records += records
                self._bytes += sum(map(len, records))
                return
        self._log.append_many(records)

    def hand_over(self, log: OpenLog) -> None:
        """Append to a log what was kept for it, and from now on whatever comes."""
        with self._lock:
            if self._records:
                log.append_many(self._records)
            self._records, self._bytes, self._log = [], 0, log
