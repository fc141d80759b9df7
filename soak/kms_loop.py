"""What calls to a KMS cost the event loop that makes them: how late it gets, and how long they take beside the SDK."""

from __future__ import annotations

import asyncio
import gc
import os
import statistics
import time
from itertools import cycle
from pathlib import Path

from soak.figures import Figures
from soak.harness import fork, keep_to, two_sides
from soak.kms_places import CONTEXT, KEY, KmsPlace, places

IN_FLIGHT = 100
TICK_S = 0.001
STALL_MS = 5.0
WARM_UP = 20
OVERHEAD_US = 250.0
HOP_US = 110.0
"""What a bare hop to a thread takes on the machine that the overhead was set for: where it takes more, so may they."""


class Bystander:
    """An idle event loop in a process of its own: how late it gets, any loop may get at that moment.

    It stands on the core of the loop that calls: what else the machine does there, it sees too.
    """

    def __init__(self, core: set[int]) -> None:
        reading, self._writing = os.pipe()
        self._child = fork(_stand_by, reading, self._writing, core)
        os.close(reading)
        self._spans: list[tuple[float, float]] = []

    def saw_since(self, started: float) -> None:
        """Note that what lies between then and now, in seconds of the monotonic clock, is asked for."""
        self._spans.append((started, time.monotonic()))

    def late_s(self) -> float:
        """End it, and return how late it was at most in the spans that were noted."""
        os.close(self._writing)
        return max(
            (late for at, late in self._child.result() if any(a <= at <= b for a, b in self._spans)), default=0.0
        )


def _stand_by(reading: int, writing: int, core: set[int]) -> list[tuple[float, float]]:
    os.close(writing)
    keep_to(core)

    async def main() -> list[tuple[float, float]]:
        over, seen = asyncio.Event(), list[tuple[float, float]]()
        asyncio.get_running_loop().add_reader(reading, over.set)
        while not over.is_set():
            late = await _tick()
            if late > TICK_S:
                seen.append((time.monotonic(), late))
        return seen

    gc.freeze()
    return asyncio.run(main())


def lateness(folder: Path, index: int, *, seconds: float, rounds: int, is_full: bool) -> Figures:
    """Measure how late an event loop gets while a hundred calls are in flight, and while nothing is.

    The service gets a core of its own, as it has a machine of its own elsewhere.
    """
    figures, (here, there) = Figures(), two_sides()
    bystander = Bystander(here)

    async def main() -> None:
        keep_to(there)
        async with list(places(folder, is_far=True))[index] as place:
            keep_to(here)
            idle, busy, calls = 0.0, 0.0, 0
            first = await _while(_call_all(place))
            # The first collection over what SDKs have loaded takes a tenth of a second, whoever loads them.
            gc.collect()
            gc.freeze()
            for _ in range(rounds):
                idle = max(idle, await _while(asyncio.sleep(seconds)))
                made: list[int] = []
                started = time.monotonic()
                busy = max(busy, await _while(_keep_in_flight(place, seconds, made)))
                bystander.saw_since(started)
                calls += sum(made)
            beside = bystander.late_s()
            figures.tell(place.name, f"calls, {IN_FLIGHT} in flight, of every kind", calls)
            figures.tell(place.name, "ms late at most, idle", idle * 1e3)
            figures.tell(place.name, "ms late at most, an idle loop of another process meanwhile", beside * 1e3)
            figures.tell(place.name, "ms late at most, the SDK's loading and first calls", first * 1e3)
            what, worst = "ms late at most, meanwhile", busy * 1e3
            if is_full:
                figures.at_most(place.name, what, worst, round(max(idle, beside) * 1e3 + STALL_MS, 2))
            else:
                figures.tell(place.name, what, worst)

    asyncio.run(main())
    return figures


def overhead(folder: Path, index: int, *, calls: int, is_full: bool) -> Figures:
    """Measure a decryption through guard and provider, and by the vendor's SDK alone, in turn."""
    figures = Figures()

    async def main() -> None:
        async with list(places(folder))[index] as place:
            guarded = place.guarded()
            sealed = await guarded.encrypt(KEY, place.key_id, context=CONTEXT)
            ours, raw, hops = [], [], []
            raw_s = await place.raw_s(sealed)
            for number in range(calls + WARM_UP):
                # One hop before each: what comes after a wait finds the processor colder, and takes longer.
                hop_s = await _hop_s(raw_s)
                raw_s = await place.raw_s(sealed)
                other_hop_s = await _hop_s(raw_s)
                started = time.perf_counter()
                await guarded.decrypt(sealed)
                if number >= WARM_UP:
                    ours.append(time.perf_counter() - started)
                    raw.append(raw_s)
                    hops += [hop_s, other_hop_s]
            base, hop, added = _us(raw), _us(hops), _us(ours) - _us(raw)
            figures.tell(place.name, "us a decryption by the SDK alone, median", base)
            figures.tell(place.name, "us that a bare hop to a thread adds to a call as long", hop)
            if is_full:
                bar = round(OVERHEAD_US * max(1.0, hop / HOP_US))
                figures.at_most(place.name, "us that guard and provider add", added, bar)
            else:
                figures.tell(place.name, "us that guard and provider add", added)

    asyncio.run(main())
    return figures


async def _hop_s(seconds: float) -> float:
    """Return by how much longer a wait of so many seconds takes when an event loop has a thread do it."""
    started = time.perf_counter()
    time.sleep(seconds)
    alone_s = time.perf_counter() - started
    started = time.perf_counter()
    await asyncio.to_thread(time.sleep, seconds)
    return time.perf_counter() - started - alone_s


def _us(seconds: list[float]) -> float:
    return statistics.median(seconds) * 1e6


async def _call_all(place: KmsPlace) -> None:
    guarded = place.guarded()
    sealed = await guarded.encrypt(KEY, place.key_id, context=CONTEXT)
    for call in place.calls(guarded, sealed).values():
        await call()


async def _keep_in_flight(place: KmsPlace, seconds: float, made: list[int]) -> None:
    guarded = place.guarded()
    sealed = await guarded.encrypt(KEY, place.key_id, context=CONTEXT)
    kinds = list(place.calls(guarded, sealed).values())
    until = time.monotonic() + seconds

    async def caller(number: int) -> int:
        # Callers do not come all at once, as they do not in a service.
        await asyncio.sleep(seconds / 4 * number / IN_FLIGHT)
        count = 0
        for call in cycle([*kinds[number % len(kinds) :], *kinds[: number % len(kinds)]]):
            await call()
            count += 1
            if time.monotonic() > until:
                break
        return count

    made += await asyncio.gather(*(caller(number) for number in range(IN_FLIGHT)))
    if place.rotates:
        await guarded.rotate_key(place.key_id)  # type: ignore[attr-defined]  # as these providers have it


async def _while(work: object) -> float:
    """Return by how many seconds a tick came late, at most, while ``work`` was under way."""
    worst = 0.0
    task = asyncio.ensure_future(work)  # type: ignore[call-overload]  # any awaitable
    while not task.done():
        worst = max(worst, await _tick())
    await task
    return worst


async def _tick() -> float:
    """Return by how many seconds a tick came late."""
    started = time.perf_counter()
    await asyncio.sleep(TICK_S)
    return time.perf_counter() - started - TICK_S
