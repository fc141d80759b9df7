"""A sealed log: edited, killed, and ten million records long."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from soak import log_edits, log_kills, log_scale
from soak.figures import Figure, Figures, Setting
from soak.harness import fork, results

PROCESSES = 2
FLAT_MIB = 8.0
"""How much more memory a thousand times as many records may take: what an allocator keeps."""
OVERHEAD_BYTES = 150.0
PROOF_MS = 10.0


@dataclass(frozen=True)
class Log:
    """A part of what a sealed log withstands; seeds are told where something is found, so that it can be repeated."""

    name: str
    claim: str
    measure: Callable[[Setting, Figures], None]

    def run(self, setting: Setting) -> list[Figure]:
        """Measure the part."""
        figures = Figures()
        self.measure(setting, figures)
        return figures.rows


def _edits(setting: Setting, figures: Figures) -> None:
    edits = setting.choose(short=10_000, full=10_000_000)
    children = [fork(log_edits.fuzz, _seed(), edits // PROCESSES) for _ in range(PROCESSES)]
    done: Counter[str] = Counter()
    accepted: list[str] = []
    raised: list[str] = []
    for number, counts, taken, failed in results(children, setting.choose(short=600.0, full=8 * 3600.0)):
        figures.tell("edits", "logs edited", number)
        done += counts
        accepted += taken
        raised += failed
    for name, count in sorted(done.items()):
        figures.tell("edits", name, count)
    figures.equal("edits", "accepted", "; ".join(accepted[:5]) or "none", "none")
    figures.equal("edits", "exceptions", "; ".join(raised[:5]) or "none", "none")


def _kills(setting: Setting, figures: Figures) -> None:
    logs, kills = setting.choose(short=(10, 10), full=(100, 10))
    outcome = log_kills.killed_runs(setting.folder / "kills", _seed(), logs=logs, kills=kills)
    figures.equal("kills", "writers killed", logs * kills, setting.choose(short=100, full=1000))
    figures.tell("kills", "records, files, sessions", f"{outcome.records}, {outcome.files}, {outcome.sessions}")
    figures.tell("kills", "verified while they were written", outcome.live)
    figures.at_least("kills", "records acknowledged", outcome.acknowledged, 1000)
    figures.equal("kills", "acknowledged and not there", len(outcome.lost), 0)
    figures.equal("kills", "false findings", "; ".join(outcome.findings[:5]) or "none", "none")


def _scale(setting: Setting, figures: Figures) -> None:
    log_scale.warm_up(setting.folder / "warm")
    few, many = setting.choose(short=(1_000, 100_000), full=(10_000, 10_000_000))
    short, long = (log_scale.measured(setting.folder / f"scale-{count}", count) for count in (few, many))
    for each in (short, long):
        where = f"{each.records:,} records".replace(",", " ")
        figures.tell(where, "memory while writing, MiB", each.writing_mib)
        figures.tell(where, "memory while verifying, MiB", each.verifying_mib)
        figures.at_most(where, "overhead, bytes a record", each.bytes_a_record, OVERHEAD_BYTES)
        figures.at_most(where, "one proof by the index, ms", each.proof_ms, PROOF_MS)
        figures.tell(where, "making the index, s", each.indexing_s)
        figures.tell(where, "one proof without it, s", each.without_s)
        figures.equal(where, "findings, and proofs that do not verify", "; ".join(each.wrong[:5]) or "none", "none")
    figures.at_most("both", "memory that grows while writing, MiB", long.writing_mib - short.writing_mib, FLAT_MIB)
    grown = long.verifying_mib - short.verifying_mib
    figures.at_most("both", "memory that grows while verifying, MiB", grown, FLAT_MIB)


def _seed() -> int:
    return int.from_bytes(os.urandom(4), "big")


LOG_EDITS: Final = Log("log-edits", "No edit of a sealed log goes unseen, and none stops its verifier.", _edits)
LOG_KILLS: Final = Log(
    "log-kills",
    "No kill of a sealed log's writer, no clock step, rotation or compression is an alarm, or loses what was "
    "acknowledged.",
    _kills,
)
LOG_SCALE: Final = Log(
    "log-scale",
    "Neither the memory that a sealed log's writer and verifier take nor a proof grows with the log.",
    _scale,
)
