"""Sixty-four rotators at the same moment: tasks of several managers in several processes."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path
from typing import Final

from keystead.manager.manager import KeyManager
from soak.figures import Figure, Figures, Setting
from soak.harness import fork, in_child, results, sleep_until, wait_for
from soak.places import Place

PROCESSES: Final = 4
MANAGERS: Final = 2
TASKS: Final = 8
ROTATORS: Final = PROCESSES * MANAGERS * TASKS


class Rotators:
    """See the module."""

    name = "rotators"
    claim = (
        "Of sixty-four rotators at once one wins and the others adopt; versions stay contiguous, exactly one active."
    )

    def run(self, setting: Setting) -> list[Figure]:
        """Rotate as nodes on one schedule do, then each for itself, on each database."""
        figures = Figures()
        rounds = setting.choose(short=1, full=20)
        times = setting.choose(short=2, full=20)
        for place in setting.databases.each(setting.folder):
            before = len(in_child(_versions, place))
            for _ in range(rounds):
                _race(place, 1)
            once = len(in_child(_versions, place)) - before
            figures.equal(place.kind, f"versions made by {rounds} x {ROTATORS} rotators at once", once, rounds)
            _race(place, times)
            versions = in_child(_versions, place)
            made = len(versions) - before - once
            figures.at_least(place.kind, f"versions made by {ROTATORS} rotators, {times} times each", made, times)
            numbers = [version for version, _ in versions]
            figures.equal(place.kind, "versions are 1, 2, 3...", numbers == list(range(1, len(numbers) + 1)), True)
            figures.equal(place.kind, "active versions", sum(is_active for _, is_active in versions), 1)
        return figures.rows


def _race(place: Place, times: int) -> None:
    """Let every rotator go at once, and rotate ``times`` times; an error of any of them ends the scenario."""
    start = place.folder / f"start-{time.monotonic_ns()}"
    children = [fork(_rotators, place, start, times) for _ in range(PROCESSES)]
    ready = [start.with_name(f"{start.name}-{child.pid}") for child in children]
    wait_for(lambda: all(path.exists() for path in ready), 60, "the rotators to be ready")
    start.touch()
    results(children, 1800)


def _rotators(place: Place, start: Path, times: int) -> None:
    async def main() -> None:
        managers = [place.manager() for _ in range(MANAGERS)]
        for km in managers:
            await km.initialize()
        start.with_name(f"{start.name}-{os.getpid()}").touch()
        await sleep_until(start.exists, 60, "the word")

        async def rotate(km: KeyManager) -> None:
            for _ in range(times):
                await km.rotate_data_key()

        await asyncio.gather(*(rotate(managers[number % MANAGERS]) for number in range(MANAGERS * TASKS)))
        for km in managers:
            await km.close()

    asyncio.run(main())


def _versions(place: Place) -> list[tuple[int, bool]]:
    async def main() -> list[tuple[int, bool]]:
        async with place.manager() as km:
            return [(info.version, info.is_active) for info in await km.default.versions()]

    return asyncio.run(main())
