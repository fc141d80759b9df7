"""Sealing a log and checking one, beside the least that could be called so: one HMAC and two hashes a record.

Every log is a real file. Sealing counts the queue, the tag, the chain, the tree, the line and its writing, up to and
with a flush at the end of each round; checking counts reading the file and everything that is recomputed. The peer is
fapilog-tamper, where it is installed: its enricher with a line written to an open file, which is the least that a
record of it takes, and its verifier over as many records.
"""

from __future__ import annotations

import asyncio
import base64
import hmac
import json
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from hashlib import sha256
from itertools import repeat
from pathlib import Path
from time import process_time_ns
from typing import Any, Final

from benchmarks.timing import Loop, Sample, measure
from keystead.ledger import SealedFile, Verifier
from keystead.testing import FakeKMS

RECORD: Final = b'{"event":"' + b"x" * 288 + b'"}'
CHECKED_RECORDS: Final = 16_384
MANY: Final = 512
CELL_MS: Final = 25.0
"""What a cell of a log gets a round: long enough that a flush does not count for much."""

FLOOR: Final = "one `hmac.digest` and two SHA-256, nothing kept"
APPEND: Final = "`append`, into a file"
APPEND_MANY: Final = f"`append_many`, {MANY} at a time, into a file"
VERIFY: Final = "`Verifier.verify`, from the file"
PEER_SEAL: Final = "fapilog-tamper's enricher, into a file"
PEER_VERIFY: Final = "fapilog-tamper's `Verifier.verify_file`"
BARS: Final = {APPEND: 0.8, APPEND_MANY: 0.8, VERIFY: 0.7}
"""How fast each is at least, beside the floor."""
PEER_BARS: Final = {APPEND: (PEER_SEAL, 3.0), APPEND_MANY: (PEER_SEAL, 3.0), VERIFY: (PEER_VERIFY, 4.0)}
"""How many times as fast as the peer each is at least."""


@dataclass(frozen=True, slots=True)
class LogFigures:
    """Nanoseconds a record, by what was done.

    Attributes:
        absent: why the peer is not there; empty where it is.
    """

    samples: dict[str, Sample]
    absent: str

    def part(self, what: str) -> float:
        """Return how fast something is beside the floor, as the median over the rounds of the two rates' ratio."""
        return 1 / self.samples[what].ratio_to(self.samples[FLOOR])

    def times(self, what: str, peer: str) -> float:
        """Return how many times as fast as a peer something is."""
        return self.samples[peer].ratio_to(self.samples[what])


def run(folder: Path, *, rounds: int) -> LogFigures:
    """Measure everything of this module, in turn."""
    with ExitStack() as stack:
        one, many, checked = (
            stack.enter_context(_log(folder / name, stream=f"bench.example.org/{name}"))
            for name in ("one.log", "many.log", "checked.log")
        )
        checked.append_many([RECORD] * CHECKED_RECORDS)
        checked.checkpoint()
        loops = {
            FLOOR: _floor(),
            APPEND: _append(one),
            APPEND_MANY: _append_many(many),
            VERIFY: _verify(checked),
        }
        absent = ""
        try:
            loops |= _peer(folder)
        except ImportError as exc:
            absent = f"not installed: no module `{exc.name}` on this Python"
        (samples,) = measure([loops], rounds=rounds, cell_ms=CELL_MS)
    return LogFigures(samples, absent)


@contextmanager
def _log(path: Path, *, stream: str) -> Iterator[SealedFile]:
    with SealedFile(path, stream=stream, kms=_KMS, key_id="bench", max_bytes=1 << 30) as log:
        yield log


_KMS: Final = FakeKMS()


def _floor() -> Loop:
    key = os.urandom(32)

    def run(times: int) -> int:
        rounds, record, digest, sha = repeat(None, times), RECORD, hmac.digest, sha256
        start = process_time_ns()
        for _ in rounds:
            digest(key, record, "sha256")
            sha(record).digest()
            sha(record).digest()
        return process_time_ns() - start

    return run


def _append(log: SealedFile) -> Loop:
    def run(times: int) -> int:
        rounds, record = repeat(None, times), RECORD
        start = process_time_ns()
        for _ in rounds:
            log.append(record)
        log.flush()
        return process_time_ns() - start

    return run


def _append_many(log: SealedFile) -> Loop:
    def run(times: int) -> int:
        whole, rest = divmod(times, MANY)
        parts = [[RECORD] * MANY] * whole + [[RECORD] * rest]
        start = process_time_ns()
        for part in parts:
            log.append_many(part)
        log.flush()
        return process_time_ns() - start

    return run


def _verify(log: SealedFile) -> Loop:
    verifier = Verifier(log.trust_policy(), {"fake": _KMS})

    def run(times: int) -> int:
        reports = []
        start = process_time_ns()
        for _ in range(max(1, times // CHECKED_RECORDS)):
            reports.append(verifier.verify(log.path))
        taken = process_time_ns() - start
        checked = sum(report.records_checked for report in reports)
        if not all(report.valid for report in reports):
            raise AssertionError("the log of the benchmark is not valid")
        return taken * times // checked

    return run


def _peer(folder: Path) -> dict[str, Loop]:
    from fapilog_tamper.enricher import IntegrityEnricher
    from fapilog_tamper.verify import Verifier as PeerVerifier

    key = os.urandom(32)
    os.environ["KEYSTEAD_BENCH_PEER_KEY"] = base64.urlsafe_b64encode(key).decode()
    enricher = IntegrityEnricher(
        {"key_source": "env", "key_env_var": "KEYSTEAD_BENCH_PEER_KEY", "key_id": "bench", "state_dir": str(folder)}
    )
    asyncio.run(enricher.start())
    event = {**json.loads(RECORD), "timestamp": "2026-01-01T00:00:00Z"}
    path = folder / "peer.log"

    async def seal(file: Any, times: int) -> None:
        for _ in repeat(None, times):
            sealed = {**event, **await enricher.enrich(event)}
            file.write(json.dumps(sealed, separators=(",", ":")) + "\n")
        file.flush()

    def run(times: int) -> int:
        with (folder / "sealed.log").open("a", encoding="utf-8") as file:
            start = process_time_ns()
            asyncio.run(seal(file, times))
            return process_time_ns() - start

    with path.open("w", encoding="utf-8") as file:
        asyncio.run(seal(file, CHECKED_RECORDS))

    class Keys:
        def get_key(self, key_id: str) -> bytes:
            return key

    verifier = PeerVerifier(Keys())

    def check(times: int) -> int:
        checked = 0
        start = process_time_ns()
        for _ in range(max(1, times // CHECKED_RECORDS)):
            report = asyncio.run(verifier.verify_file(path))
            checked += report.records_checked
        taken = process_time_ns() - start
        if not report.valid:
            raise AssertionError("the peer's log is not valid to it")
        return taken * times // checked

    return {PEER_SEAL: run, PEER_VERIFY: check}
