"""One run of bulk work in a process of its own: tells each file that is done, and at its end what it took."""

from __future__ import annotations

import json
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from keystead import bulk
from keystead.blocking import KeyManager
from keystead.bulk import BulkEngine, BulkProgress, KeyRules
from keystead.errors import ConflictError

RULES: Final = KeyRules(columns={"pii": ["email", "note"]}, plain="id")
WORKERS: Final = 2
_LEASE_S: Final = 60.0


def main(settings: str, engine: str, source: str, target: str) -> None:
    """Encrypt a dataset; ``engine`` is ``inline``, ``processes``, or a scheduler's address."""
    made: BulkEngine
    if engine == "inline":
        made = bulk.Inline()
    elif engine == "processes":
        made = bulk.ProcessPool(WORKERS)
    else:
        made = bulk.Dask(engine, patience_s=20.0)
    at: list[float] = []

    def on_progress(progress: BulkProgress) -> None:
        at.append(time.monotonic())
        print(progress.files_done, flush=True)

    with KeyManager.from_config(settings, background=False) as km:
        began = time.monotonic()
        report = _when_free(
            lambda: bulk.encrypt(
                km, source, target, RULES, engine=made, settings=Path(settings), on_progress=on_progress
            )
        )
        took = time.monotonic() - began
    print(json.dumps({**asdict(report), "took_s": took, "between_s": at[-1] - at[0] if at else 0.0}), flush=True)


def _when_free(run: Any) -> Any:
    """Run when the lease of a run that was killed has expired."""
    until = time.monotonic() + _LEASE_S
    while True:
        try:
            return run()
        except ConflictError:
            if time.monotonic() > until:
                raise
            time.sleep(0.5)


if __name__ == "__main__":
    main(*sys.argv[1:])
