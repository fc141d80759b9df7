"""Records through fapilog's own worker: what sealing adds to them, by Keystead's plugins and by fapilog-tamper's.

The worker is fapilog's, with batches of the size that it takes by default and sinks that write real files. What is
timed is a batch from the filters to the sink, and a flush of the sink at the end of each round; what an application
does before it, and waits for, is not. No other enrichers and redactors are there: they cost everybody the same, and
fapilog-tamper's seals hold only where none of them changes a record.
"""

from __future__ import annotations

import asyncio
import base64
import os
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path
from time import process_time_ns
from typing import Any, Final

from benchmarks.timing import Loop, Sample, measure

BATCH: Final = 256
CELL_MS: Final = 150.0
"""Long enough that a flush, which waits for the disk, does not count for much."""
VARIABLE: Final = "KEYSTEAD_BENCH_FAPILOG_KEY"
BAR: Final = 5.0
"""How many times as fast as fapilog-tamper sealing is at least."""

NO_SINK: Final = "a sink that drops, nothing sealed"
TAMPER: Final = "fapilog-tamper: `integrity`, `sealed` over a sink that drops"
SERIALIZED: Final = "a sink that serialises and drops, nothing sealed"
ENRICHED: Final = "the same behind an enricher that adds nothing"
OURS: Final = "Keystead: `sealed`, into its file"
OURS_BOTH: Final = "Keystead: `integrity` and `sealed`, into its file"
PLAIN: Final = "`rotating_file`, nothing sealed"
TAMPER_FILE: Final = "fapilog-tamper: `integrity`, `sealed` over `rotating_file`"
PAIRS: Final = {OURS: SERIALIZED, OURS_BOTH: ENRICHED, TAMPER: NO_SINK, TAMPER_FILE: PLAIN}
"""Each with the same records without a seal. fapilog-tamper's enricher is part of its seal, Keystead's is not."""


@dataclass(frozen=True, slots=True)
class FapilogFigures:
    """Nanoseconds a record, by what it goes through.

    Attributes:
        absent: why something is not there; empty where nothing is missing.
    """

    samples: dict[str, Sample]
    absent: str = ""

    def added(self, what: str) -> Sample:
        """Return what sealing adds to the same records unsealed, round by round."""
        pairs = zip(self.samples[what].rounds, self.samples[PAIRS[what]].rounds, strict=True)
        return Sample(tuple(sealed - unsealed for sealed, unsealed in pairs))

    def added_times(self) -> float:
        """Return how many times what Keystead's sink adds is what fapilog-tamper adds, as the medians of both."""
        return self.added(TAMPER).median_ns / self.added(OURS).median_ns

    def whole_times(self) -> float:
        """Return how many times as fast as fapilog-tamper's a record is in its file, sealed."""
        return self.samples[TAMPER_FILE].ratio_to(self.samples[OURS])


def run(folder: Path, *, rounds: int) -> FapilogFigures:
    """Measure everything of this module, in turn; Keystead and fapilog have to be there, fapilog-tamper need not."""
    with asyncio.Runner() as runner:
        try:
            paths = runner.run(_paths(folder))
        except ImportError as exc:
            return FapilogFigures({}, f"not installed: no module `{exc.name}` on this Python")
        absent = ""
        try:
            paths.update(runner.run(_peer(folder)))
        except ImportError as exc:
            absent = f"not installed: no module `{exc.name}` on this Python"
        loops = {name: _loop(runner, *path) for name, path in paths.items()}
        (samples,) = measure([loops], rounds=rounds, cell_ms=CELL_MS)
        for _, _, stop in paths.values():
            runner.run(stop())
    return FapilogFigures(samples, absent)


Async = Callable[[], Coroutine[Any, Any, object]]
Way = tuple[Any, Async, Async]
"""A worker, what flushes its sink, and what stops it."""


class _Idle:
    """An enricher that shows what calling one costs."""

    name = "idle"

    async def enrich(self, event: dict[str, Any]) -> dict[str, Any]:
        return {}


class _Dropping:
    """A sink that does nothing, or no more than serialise."""

    name = "dropping"

    def __init__(self, serialize: Callable[[Any], object] | None = None) -> None:
        self._serialize = serialize

    async def start(self) -> None:
        return None

    async def stop(self) -> None:
        return None

    async def write(self, entry: dict[str, Any]) -> None:
        if self._serialize is not None:
            self._serialize(entry)


async def _nothing() -> None:
    return None


async def _paths(folder: Path) -> dict[str, Way]:
    from fapilog.core.serialization import serialize_envelope

    from keystead.integrations.fapilog import IntegrityEnricher, SealedSink

    alone, both = (
        SealedSink(
            inner_config={"directory": str(folder / name), "max_bytes": 1 << 30},
            stream=f"bench.example.org/{name}",
            key=os.urandom(32),
        )
        for name in ("fapilog-one", "fapilog-both")
    )
    for sink in (alone, both):
        await sink.start()
    dropping, serializing = _Dropping(), _Dropping(serialize_envelope)
    plain = _rotating(folder / "plain")
    return {
        NO_SINK: (_worker(dropping), _nothing, _nothing),
        SERIALIZED: (_worker(serializing), _nothing, _nothing),
        ENRICHED: (_worker(_Dropping(serialize_envelope), _Idle()), _nothing, _nothing),
        OURS: (_worker(alone), alone.flush, alone.stop),
        OURS_BOTH: (_worker(both, IntegrityEnricher(stream_id=both.stream)), both.flush, both.stop),
        PLAIN: (_worker(plain), _nothing, plain.stop),
    }


async def _peer(folder: Path) -> dict[str, Way]:
    from fapilog_tamper.enricher import IntegrityEnricher
    from fapilog_tamper.sealed_sink import SealedSink

    key = os.urandom(32)
    os.environ[VARIABLE] = base64.urlsafe_b64encode(key).decode()
    ways: dict[str, Way] = {}
    for name, inner in ((TAMPER, _Dropping()), (TAMPER_FILE, _rotating(folder / "tamper"))):
        state = folder / f"state-{len(ways)}"
        enricher = IntegrityEnricher({"key_env_var": VARIABLE, "key_id": "bench", "state_dir": str(state)})
        await enricher.start()
        if "integrity" not in await enricher.enrich(_event(0)):
            raise AssertionError("the peer of the benchmark seals nothing")
        sink = SealedSink(inner, {"key_id": "bench"}, key=key, manifest_path=str(folder))
        ways[name] = (_worker(sink, enricher), _nothing, sink.stop)
    return ways


def _rotating(folder: Path) -> Any:
    from fapilog.plugins.sinks.rotating_file import RotatingFileSink, RotatingFileSinkConfig

    folder.mkdir()
    return RotatingFileSink(RotatingFileSinkConfig(directory=folder, max_bytes=1 << 30))


def _worker(sink: object, *enrichers: object) -> Any:
    from fapilog.core.concurrency import DualQueue
    from fapilog.core.sink_writers import make_sink_writer
    from fapilog.core.worker import LoggerWorker

    write, write_serialized = make_sink_writer(sink)
    every: Any = enrichers
    return LoggerWorker(
        queue=DualQueue(main_capacity=1, protected_capacity=1, protected_levels=frozenset()),
        batch_max_size=BATCH,
        batch_timeout_seconds=1.0,
        sink_write=write,
        sink_write_serialized=write_serialized,
        enrichers_getter=lambda: every,
        redactors_getter=lambda: (),
        metrics=None,
        serialize_in_flush=False,
        strict_envelope_mode_provider=lambda: False,
        stop_flag=lambda: False,
        drained_event=None,
        flush_event=None,
        flush_done_event=None,
        emit_enricher_diagnostics=False,
        emit_redactor_diagnostics=False,
        counters={"processed": 0, "dropped": 0},
    )


def _event(number: int) -> dict[str, Any]:
    return {
        "timestamp": "2026-01-02T03:04:05.678Z",
        "level": "INFO",
        "message": "an order was paid",
        "logger": "shop",
        "context": {"correlation_id": "0123456789abcdef0123456789abcdef"},
        "diagnostics": {},
        "data": {"number": number, "user": "ada", "path": "/orders/4711", "status": 200, "ms": 12.5},
    }


def _loop(runner: asyncio.Runner, worker: Any, flush: Async, stop: Async) -> Loop:
    async def write(batches: list[list[dict[str, Any]]]) -> int:
        start = process_time_ns()
        for batch in batches:
            await worker.flush_batch(batch)
        await flush()
        return process_time_ns() - start

    def run(times: int) -> int:
        whole, rest = divmod(times, BATCH)
        sizes = [*repeat(BATCH, whole), *([rest] if rest else [])]
        return runner.run(write([[_event(number) for number in range(size)] for size in sizes]))

    return run
