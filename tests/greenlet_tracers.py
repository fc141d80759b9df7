"""A plugin of coverage.py: a tracer for each greenlet of SQLAlchemy's, so that its frames are not taken for others'.

The setting for that, ``concurrency = greenlet``, asks which greenlet runs at every call and return of the process, by
code in Python: with it, measuring took half as long again. Here only a switch takes longer.
"""

from __future__ import annotations

import sys
from typing import Any, Final

from coverage.collector import Collector
from sqlalchemy.util import concurrency

_SPARE: Final[list[tuple[Collector, Any]]] = []
"""Tracers of greenlets that have ended, each with its collector: the one of a process that forked is another."""


def coverage_init(registry: object, options: object) -> None:
    """Let greenlets that SQLAlchemy makes from now on be traced each by itself."""
    shim: Any = concurrency._concurrency_shim
    if not issubclass(shim._AsyncIoGreenlet, _Traced):
        shim._AsyncIoGreenlet = type("_AsyncIoGreenlet", (_Traced, shim._AsyncIoGreenlet), {})


class _Traced:
    """What is mixed into a greenlet: while it runs, its own tracer stands in for the one of who switched to it."""

    _tracer: tuple[Collector, Any] | None = None
    dead: bool

    def switch(self, *args: Any, **kwargs: Any) -> Any:
        return self._run(super().switch, *args, **kwargs)  # type: ignore[misc]

    def throw(self, *args: Any) -> Any:
        return self._run(super().throw, *args)  # type: ignore[misc]

    def _run(self, run: Any, *args: Any, **kwargs: Any) -> Any:
        driver: Any = sys.gettrace()
        if type(driver).__name__ != "CTracer" or not Collector._collectors:
            return run(*args, **kwargs)
        sys.settrace(None)
        tracer = self._tracer = self._tracer or _take(Collector._collectors[-1])
        tracer[1].start()
        try:
            return run(*args, **kwargs)
        finally:
            sys.settrace(None)
            if self.dead:
                _SPARE.append(tracer)
            driver.start()


def _take(collector: Collector) -> tuple[Collector, Any]:
    """Return a tracer that nobody uses, which is not among those that the collector starts again after a pause."""
    while _SPARE:
        spare = _SPARE.pop()
        if spare[0] is collector:
            return spare
    tracer: Any = collector._start_tracer()
    sys.settrace(None)
    collector.tracers.remove(tracer)
    return collector, tracer
