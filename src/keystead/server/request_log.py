"""What is counted and logged of each request, whatever it came by: its operation, how it came out, and how long."""

from __future__ import annotations

import logging
import os
import re
from typing import Final

from keystead import telemetry

log = logging.getLogger("keystead.server.requests")

OK: Final = "OK"
_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


def request_id(given: str = "") -> str:
    """Return the id by which a request is logged: the one its sender gave, if it can be one, or a new one."""
    return given if _ID.fullmatch(given) else os.urandom(8).hex()


def tell(request_id: str, operation: str, code: str, duration_s: float, *, is_logged: bool = True) -> None:
    """Count a request, and log it unless that is left out."""
    telemetry.request(operation, code, duration_s)
    if not is_logged or not log.isEnabledFor(logging.INFO):
        return
    duration_ms = round(duration_s * 1000, 3)
    fields = {"operation": operation, "code": code, "duration_ms": duration_ms, "request_id": request_id}
    told = (operation, code, duration_ms, request_id)
    # Not by ``info``, which looks for the line that calls it: that takes as long as the rest.
    log.handle(
        log.makeRecord(
            log.name, logging.INFO, "", 0, "%s %s in %s ms [%s]", told, None, extra={"event": "request", **fields}
        )
    )
