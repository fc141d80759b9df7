"""A million operations of a day with key pairs of devices: is each counted once, and how long does a summary take?"""

from __future__ import annotations

import asyncio
import random
import statistics
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, Final

from keystead.devices.metrics import Metrics as Noted
from keystead.devices.operations import Operation, Reason
from keystead.devices.summary import Summaries
from keystead.stores import open_store
from soak.figures import Figure, Figures, Setting
from soak.harness import fork
from soak.places import Place
from tests.fakes.clock import FakeClock

KEYS: Final = 10_000
DEVICES: Final = 2_000
BAD_KEYS: Final = 20
BATCH: Final = 10_000
TURNS: Final = 15
BAR_MS: Final = 50.0
DAY: Final = timedelta(days=1)
# A day before this, a summary begins with as many minutes, hours and longer times as it ever does.
NOW: Final = datetime(2030, 6, 1, 13, 1, 30, tzinfo=UTC)


class Metrics:
    """See the module."""

    name = "metrics"
    claim = "Each operation with a key pair is counted once, and the summary of a million of them takes under 50 ms."

    def run(self, setting: Setting) -> list[Figure]:
        """Load each database, and ask."""
        figures = Figures()
        wanted = setting.choose(short=20_000, full=1_000_000)
        for place in setting.databases.each(setting.folder / "metrics"):
            figures.rows += fork(_measure, place, wanted, setting.is_full).result(3600)
        return figures.rows


def _measure(place: Place, wanted: int, is_full: bool) -> list[Figure]:
    return asyncio.run(_measured(place, wanted, is_full=is_full))


async def _measured(place: Place, wanted: int, *, is_full: bool) -> list[Figure]:
    figures, clock, store = Figures(), FakeClock(), open_store(place.url)
    await store.open()
    noted = Noted(store, clock)
    started = time.monotonic()
    written = await load(noted, clock, wanted)
    figures.equal(place.kind, "operations written", written, wanted)
    figures.tell(place.kind, "operations written a second", written / (time.monotonic() - started))
    clock.set(NOW)
    summaries = Summaries(store, clock, bytes(32))
    told = await summaries.summary(24)
    figures.equal(place.kind, "operations in the summary of a day", told["totalOperations"], wanted)
    figures.tell(place.kind, "devices", told["devices"]["distinct"])
    figures.tell(place.kind, "problematic keys", len(told["problematicKeys"]))
    for hours in (1, 24, 720):
        took = await _ms(partial(summaries.summary, hours))
        what = f"ms for the summary of {hours} hours, median of {TURNS}"
        if is_full and hours > 1:
            figures.at_most(place.kind, what, took, BAR_MS)
        else:
            figures.tell(place.kind, what, took)
    await store.aclose()
    return figures.rows


async def load(noted: Noted, clock: FakeClock, wanted: int) -> int:
    """Note operations over a day: of every hundred two fail, one comes from a stranger, and some keys fail often."""
    chance, written = random.Random(wanted), 0
    begin = NOW.replace(second=0) - DAY
    for number in range(wanted):
        clock.set(begin + (NOW - begin) * (number / wanted))
        key = chance.randrange(KEYS)
        given: dict[str, Any] = {"key_id": f"key_1893456000000_{key:024x}", "device_id": f"device-{key % DEVICES:032x}"}
        duration_s = chance.lognormvariate(-7, 0.8)
        rolled = chance.random()
        if rolled < 0.02:
            noted.note(Operation.GENERATE, duration_s * 100, **given)
        elif rolled < 0.03:
            noted.note(Operation.DECRYPT, duration_s, reason=Reason.KEY_NOT_FOUND, **given)
        elif rolled < (0.33 if key < BAD_KEYS else 0.05):
            reason = chance.choice([Reason.NOT_DECRYPTED, Reason.KEY_EXPIRED, Reason.REPLAYED])
            noted.note(Operation.DECRYPT, duration_s, reason=reason, is_owner=True, **given)
        else:
            noted.note(Operation.DECRYPT, duration_s, **given)
        if noted.waiting == BATCH:
            written += await noted.flush()
    return written + await noted.flush()


async def _ms(action: Callable[[], Awaitable[object]]) -> float:
    took = []
    for _ in range(TURNS):
        started = time.perf_counter()
        await action()
        took.append((time.perf_counter() - started) * 1000)
    return statistics.median(took)
