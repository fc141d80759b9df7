"""What is counted and logged of each request, whatever it came by: its operation, how it came out, and how long."""

from __future__ import annotations

import asyncio
import logging
import os
import re
import time
from typing import Final

from keystead import telemetry

log = logging.getLogger("keystead.server.requests")

OK: Final = "OK"
TOGETHER: Final = 64
"""Lines that are logged together at most."""
MOMENT_S: Final = 0.2
"""How long a line waits for others."""
_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


def request_id(given: str = "") -> str:
    """Return the id by which a request is logged: the one its sender gave, if it can be one, or a new one."""
    return given if _ID.fullmatch(given) else os.urandom(8).hex()


def tell(request_id: str, operation: str, code: str, duration_s: float, *, is_logged: bool = True) -> None:
    """Count a request, and log it unless that is left out."""
    telemetry.request(operation, code, duration_s)
    if is_logged and log.isEnabledFor(logging.INFO):
        _log(time.time(), request_id, operation, code, duration_s)


class Lines:
    """The lines of requests of one event loop: those of a moment are logged together.

    To log one line finds all that logging is made of out of the processor's caches, and a second one finds it there. Of
    what has not come out well is told at once, and in its turn.
    """

    def __init__(self) -> None:
        self._kept: list[tuple[float, str, str, str, float]] = []

    def add(self, request_id: str, operation: str, code: str, duration_s: float) -> None:
        """Log a request soon."""
        if not log.isEnabledFor(logging.INFO):
            return
        self._kept.append((time.time(), request_id, operation, code, duration_s))
        if code != OK or len(self._kept) >= TOGETHER:
            self.log()
        elif len(self._kept) == 1:
            asyncio.get_running_loop().call_later(MOMENT_S, self.log)

    def log(self) -> None:
        """Log what is kept."""
        kept, self._kept = self._kept, []
        for each in kept:
            _log(*each)


def _log(ended_at: float, request_id: str, operation: str, code: str, duration_s: float) -> None:
    duration_ms = round(duration_s * 1000, 3)
    fields = {"operation": operation, "code": code, "duration_ms": duration_ms, "request_id": request_id}
    told = (operation, code, duration_ms, request_id)
    # Not by ``info``, which looks for the line that calls it: that takes as long as the rest.
    record = log.makeRecord(
        log.name, logging.INFO, "", 0, "%s %s in %s ms [%s]", told, None, extra={"event": "request", **fields}
    )
    record.created, record.msecs = ended_at, ended_at % 1 * 1000
    log.handle(record)
