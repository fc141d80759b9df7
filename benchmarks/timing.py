"""Timing of short calls: loops without indirection, rounds interleaved over everything that is compared.

A round times every subject once, in an order drawn anew, so that a slow spell of the machine hits all of them. The
ratio of two subjects is taken within each round, and the median of these ratios is reported. The clock is the CPU time
of the process: nothing timed here waits, and what else a shared machine does is not to be counted.
"""

from __future__ import annotations

import gc
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import repeat
from statistics import median, quantiles
from time import process_time_ns
from typing import Any

Loop = Callable[[int], int]
"""Call the subject so many times; return the nanoseconds of CPU time taken, of all threads of the process."""


def loop(subject: Callable[..., object], *args: object, context: Mapping[str, str] | None = None) -> Loop:
    """Return a loop that calls ``subject`` as a caller spells it: up to three arguments, or one and a context."""
    if context is not None:
        (only,) = args
        return _loop_context(subject, only, context)
    forms: dict[int, Callable[..., Loop]] = {1: _loop1, 2: _loop2, 3: _loop3}
    return forms[len(args)](subject, *args) if args else _loop0(subject)


def _loop0(subject: Any) -> Loop:
    def run(times: int, subject: Any = subject) -> int:
        rounds = repeat(None, times)
        start = process_time_ns()
        for _ in rounds:
            subject()
        return process_time_ns() - start

    return run


def _loop1(subject: Any, a: object) -> Loop:
    def run(times: int, subject: Any = subject, a: object = a) -> int:
        rounds = repeat(None, times)
        start = process_time_ns()
        for _ in rounds:
            subject(a)
        return process_time_ns() - start

    return run


def _loop2(subject: Any, a: object, b: object) -> Loop:
    def run(times: int, subject: Any = subject, a: object = a, b: object = b) -> int:
        rounds = repeat(None, times)
        start = process_time_ns()
        for _ in rounds:
            subject(a, b)
        return process_time_ns() - start

    return run


def _loop3(subject: Any, a: object, b: object, c: object) -> Loop:
    def run(times: int, subject: Any = subject, a: object = a, b: object = b, c: object = c) -> int:
        rounds = repeat(None, times)
        start = process_time_ns()
        for _ in rounds:
            subject(a, b, c)
        return process_time_ns() - start

    return run


def _loop_context(subject: Any, a: object, context: Mapping[str, str]) -> Loop:
    def run(times: int, subject: Any = subject, a: object = a, context: Mapping[str, str] = context) -> int:
        rounds = repeat(None, times)
        start = process_time_ns()
        for _ in rounds:
            subject(a, context=context)
        return process_time_ns() - start

    return run


@dataclass(frozen=True, slots=True)
class Sample:
    """Nanoseconds a call took, one figure a round."""

    rounds: tuple[float, ...]

    @property
    def median_ns(self) -> float:
        return median(self.rounds)

    @property
    def best_ns(self) -> float:
        return min(self.rounds)

    @property
    def spread(self) -> float:
        """Return the distance between the quartiles as a part of the median."""
        low, _, high = quantiles(self.rounds, n=4)
        return (high - low) / self.median_ns

    def ratio_to(self, floor: Sample) -> float:
        """Return the median over the rounds of this sample's time over the floor's."""
        return median(mine / theirs for mine, theirs in zip(self.rounds, floor.rounds, strict=True))


def measure(groups: Sequence[Mapping[str, Loop]], *, rounds: int, cell_ms: float) -> list[dict[str, Sample]]:
    """Time every loop of every group in ``rounds`` interleaved rounds; each gets about ``cell_ms`` a round."""
    order = random.Random(1)
    calls = [{name: _calls_for(run, cell_ms) for name, run in group.items()} for group in groups]
    taken: list[dict[str, list[float]]] = [{name: [] for name in group} for group in groups]
    gc.collect()
    gc.disable()
    try:
        for _ in range(rounds):
            for group, times, results in zip(groups, calls, taken, strict=True):
                for name in order.sample(sorted(group), len(group)):
                    results[name].append(group[name](times[name]) / times[name])
            gc.collect()
    finally:
        gc.enable()
    return [{name: Sample(tuple(figures)) for name, figures in results.items()} for results in taken]


def _calls_for(run: Loop, cell_ms: float) -> int:
    """Warm up, and return how many calls fill ``cell_ms``."""
    times = 1
    while (taken := run(times)) < 2_000_000:
        times *= 4
    return max(1, int(times * cell_ms * 1e6 / taken))
