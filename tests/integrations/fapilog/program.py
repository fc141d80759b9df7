"""An application in a process of its own: ``python program.py FOLDER COUNT HOW [CORE] [SEALED]``, the last two as JSON.

HOW is how it ends: ``drain``, ``exit`` without draining, ``term`` by a signal that fapilog handles. Or it goes on until
it is killed, and prints the number of each record that it was told is safe: ``synced`` where each write is, ``flushed``
where it asks for that now and then.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import fapilog

from keystead.integrations.fapilog import SealedSink, require_sealed
from tests.integrations.fapilog.apps import settings_for

EACH = 25


class Acknowledging:
    """A sink behind the sealed one: fapilog writes to it once that has returned."""

    name = "acknowledging"

    def __init__(self, sealed: SealedSink, *, flushes: bool) -> None:
        self._sealed = sealed
        self._flushes = flushes

    async def write(self, entry: dict[str, Any]) -> None:
        number = entry["data"]["number"]
        if self._flushes and number % EACH:
            return
        if self._flushes:
            await self._sealed.flush()
        print(number, flush=True)


def main() -> None:
    folder, count, how = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
    core, sealed = (json.loads(each) for each in [*sys.argv[4:], "{}", "{}"][:2])
    settings = settings_for(folder, core=core, extra=sealed or None)
    if how in {"synced", "flushed"}:
        settings.core.sinks = ["stdout_json"]  # instead of which the logger is given those below
        sink = SealedSink(inner_config={"directory": str(folder)}, fsync_on_write=how == "synced", checkpoint_s=0.2)
        sink.open()
        sinks: list[object] = [sink, Acknowledging(sink, flushes=how == "flushed")]
        logger = fapilog.get_logger("app", settings=settings, sinks=sinks)
    else:
        logger = fapilog.get_logger("app", settings=settings)
        require_sealed(logger)
    for number in range(count):
        message = f"record {number}"
        logger.info(message, number=number)
    if how == "drain":
        asyncio.run(logger.stop_and_drain())
    elif how == "term":
        os.kill(os.getpid(), signal.SIGTERM)
    elif how in {"synced", "flushed"}:
        signal.pause()


if __name__ == "__main__":
    main()
