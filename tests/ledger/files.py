"""Logs on disk: opened, verified, and what the application wrote."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from keystead.ledger import SealedFile, TrustPolicy, Verifier, VerifyReport
from keystead.ledger.format.records import parse_line
from keystead.testing import FakeKMS
from tests.ledger import logs

STREAM: Final = logs.STREAM


def opened(path: Path, kms: FakeKMS, **options: Any) -> SealedFile:
    return SealedFile(path, stream=STREAM, kms=kms, key_id="audit", **options)


def verified(path: Path, kms: FakeKMS, policy: TrustPolicy, **options: Any) -> VerifyReport:
    return Verifier(policy, {"fake": kms}).verify(path, **options)


def payloads(path: Path) -> list[Any]:
    """Return what the application wrote."""
    found = []
    for line in path.read_bytes().splitlines():
        record = parse_line(line)
        if record.kind is None:
            found.append(json.loads(record.payload))
    return found


def killed(log: SealedFile, *, between_files: int | None = None) -> None:
    """Leave a log as a process does that is killed, for instance just before it begins file ``between_files``."""
    with log._log._lock:
        log._log._is_closing = True
        log._log._written_due.notify_all()
        log._log._signed_due.notify_all()
    for thread in log._log._threads:
        thread.join()
    if between_files is not None:
        log._log._signed.end(between_files)
    log._log.forget()


def until(is_so: Callable[[], object]) -> None:
    """Wait until something is so."""
    for _ in range(6000):
        if is_so():
            return
        time.sleep(0.01)
    raise AssertionError("it never came to be so")
