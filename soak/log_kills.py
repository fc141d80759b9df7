"""A log's writer killed at any moment, while its clock is set and its files end and are compressed."""

from __future__ import annotations

import json
import os
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from keystead.ledger import SealedFile, TrustPolicy, Verifier
from keystead.ledger.format.records import MalformedRecordError, parse_line
from keystead.ledger.reading.files import LogFiles
from keystead.ledger.reading.lines import LogFile
from keystead.providers.local.kek_file import create_kek_file
from soak.harness import fork, in_child, wait_for

STREAM: Final = "soak.example.org/kills"
LONGEST_S: Final = 0.25
RUN: Final = 10_000_000
"""Where the numbers of the next run begin."""
OPENING: Final = 5
LIVE: Final = 4
"""Of so many writers one may be killed while it opens the log, and one is read while it writes."""
STEPS_S: Final = (-86_400.0, -30.0, -2.0, -0.4, 0.7, 3.0, 3600.0)
"""What the clock is set by."""
FASTER: Final = 20
"""How much faster than time the monotonic clock goes, so that there are many epochs."""


@dataclass(slots=True)
class Outcome:
    """What became of logs: findings that are none, records that were acknowledged and are not there, and counts."""

    findings: list[str] = field(default_factory=list)
    lost: list[int] = field(default_factory=list)
    acknowledged: int = 0
    records: int = 0
    files: int = 0
    sessions: int = 0
    live: int = 0


class Unsteady:
    """A clock that is set now and then."""

    def __init__(self, dice: random.Random) -> None:
        self._dice = dice
        self._offset = timedelta()
        self.steps = 0

    def step(self) -> None:
        """Set the clock."""
        self._offset += timedelta(seconds=self._dice.choice(STEPS_S))
        self.steps += 1

    def now(self) -> datetime:
        """Return the time of day, as it was set."""
        return datetime.now(UTC) + self._offset

    def monotonic(self) -> float:
        """Return seconds that never go back."""
        return time.monotonic() * FASTER

    async def sleep(self, seconds: float) -> None:
        """Nothing of a log sleeps by its clock."""
        raise NotImplementedError


def killed_runs(folder: Path, seed: int, *, logs: int, kills: int) -> Outcome:
    """Write ``logs`` logs whose writers are killed ``kills`` times each, and verify them, live and afterwards."""
    outcome = Outcome()
    dice = random.Random(seed)
    for number in range(logs):
        place = folder / f"log-{number}"
        place.mkdir(parents=True)
        create_kek_file(place / "kek")
        in_child(_begin, place)
        for run in range(kills):
            began = (place / "acknowledged").stat().st_size
            writer = fork(_write, place, dice.randrange(2**32), run * RUN)
            if run % OPENING:
                wait_for(lambda: (place / "acknowledged").stat().st_size > began, 60, "a log to open")  # noqa: B023
            time.sleep(dice.uniform(0.0, LONGEST_S))
            if run % LIVE == 1:
                outcome.live += 1
                outcome.findings += in_child(_verified, place, None)[0]
            writer.kill()
        told = [int(line) for line in (place / "acknowledged").read_text().split()]
        acknowledged = list({last // RUN: last for last in told}.values())
        in_child(_begin, place)
        findings, lost, counts = in_child(_verified, place, acknowledged)
        outcome.findings += [f"seed {seed}, log {number}: {each}" for each in findings]
        outcome.lost += lost
        outcome.acknowledged += sum(len(_until(last)) for last in acknowledged)
        outcome.records, outcome.files = outcome.records + counts[0], outcome.files + counts[1]
        outcome.sessions += counts[2]
    return outcome


def _opened(place: Path, dice: random.Random, clock: Unsteady) -> SealedFile:
    return SealedFile(
        place / "app.log",
        stream=STREAM,
        kms=f"file:{place / 'kek'}",
        epoch_s=2,
        checkpoint_records=dice.choice((50, 100_000)),
        checkpoint_s=0.05,
        max_bytes=dice.choice((8_000, 60_000, None)),
        compress=dice.random() < 0.7,
        buffer_s=0.005,
        clock=clock,
    )


def _begin(place: Path) -> None:
    """Open the log, see that its policy is saved, and close it."""
    dice = random.Random(0)
    with _opened(place, dice, Unsteady(dice)) as log:
        log.trust_policy().save(place / "policy.json")
    (place / "acknowledged").touch()


def _write(place: Path, seed: int, number: int) -> None:
    """Write until killed; what was flushed is acknowledged, by the number of the last record."""
    dice = random.Random(seed)
    clock = Unsteady(dice)
    log = _opened(place, dice, clock)
    acknowledged = os.open(place / "acknowledged", os.O_WRONLY | os.O_APPEND)
    os.write(acknowledged, b"\n")
    while True:
        choice = dice.random()
        if choice < 0.03:
            clock.step()
        elif choice < 0.04:
            log.rotate()
        elif choice < 0.06:
            log.checkpoint()
        elif choice < 0.16:
            log.flush()
            os.write(acknowledged, b"%d\n" % number)
            time.sleep(0.002)
        elif choice < 0.3:
            many = range(number + 1, number + 1 + dice.randrange(1, 60))
            log.append_many([b'{"number":%d}' % each for each in many])
            number = many[-1]
        else:
            number += 1
            log.append(b'{"number":%d,"text":"%b"}' % (number, b"x" * dice.randrange(600)))


def _verified(place: Path, acknowledged: Sequence[int] | None) -> tuple[list[str], list[int], tuple[int, int, int]]:
    """Return what a verifier finds, what is not there that was acknowledged, and how much was read."""
    path = place / "app.log"
    report = Verifier(TrustPolicy.load(place / "policy.json")).verify(path)
    findings = [f"{each.error_type}: {each.message}" for each in report.errors]
    if acknowledged is None:
        return findings, [], (0, 0, 0)
    files = LogFiles(path)
    present: set[int] = set()
    for file in (*files.ended().values(), path):
        present |= numbers_in(LogFile(file))
    lost = [each for last in acknowledged for each in _until(last) if each not in present]
    return findings, lost, (report.size, report.files, report.sessions)


def _until(last: int) -> range:
    """Return the numbers of a run up to one: whoever acknowledges a record acknowledges those before it."""
    return range(last - last % RUN + 1, last + 1)


def numbers_in(file: LogFile) -> set[int]:
    """Return the numbers that an application wrote, of a log that may have broken lines."""
    found = set()
    for _, line in file.lines_from(0):
        try:
            record = parse_line(line)
        except MalformedRecordError:
            continue
        if record.kind is None:
            found.add(json.loads(record.payload)["number"])
    return found
