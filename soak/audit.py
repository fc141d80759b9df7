"""The audit trail under many writers in many processes, and what it costs."""

from __future__ import annotations

import asyncio
import time
from statistics import median
from typing import Final

from keystead.ledger.audit.options import AuditOptions
from keystead.ledger.audit.verifying import AuditReport
from keystead.manager import admin
from keystead.manager.manager import KeyManager
from soak.figures import Figure, Figures, Setting
from soak.harness import fork, in_child, results
from soak.places import Place, rows

TIMEOUT_S: Final = 6 * 3600.0
ACTION: Final = "soak.write"
PAGE: Final = 10_000
MILLION: Final = 1_000_000
ROUNDS: Final = 5


class Audit:
    """See the module."""

    name = "audit"
    claim = (
        "Of what many writers in many processes write into one trail nothing is lost and nothing is there twice, and "
        "all of it verifies; audited transactions keep at least 70 % of their rate, and a million records verify in "
        "half a minute."
    )

    def run(self, setting: Setting) -> list[Figure]:
        """Do it on each database, one after the other: rates are measured."""
        figures = Figures()
        for kind in setting.databases.kinds:
            folder = setting.folder / f"audit {kind}".lower().replace(" ", "-")
            place = setting.databases.place(kind, folder)
            _chain(setting, place, figures)
            place.drop()
            _rates(setting, figures, kind)
        return figures.rows


def _chain(setting: Setting, place: Place, figures: Figures) -> None:
    processes = setting.choose(short=2, full=4)
    writers = setting.choose(short=8, full=64)
    each = setting.choose(short=200, full=10_000)
    wanted = processes * writers * each
    in_child(_begin, place)
    started = time.monotonic()
    written = sum(results([fork(_write, place, number, writers, each) for number in range(processes)], TIMEOUT_S))
    seconds = time.monotonic() - started
    report, found, twice, verify_s = fork(_check, place).result(TIMEOUT_S)
    figures.tell(place.kind, "processes x writers x entries", f"{processes} x {writers} x {each}")
    figures.equal(place.kind, "entries written", written, wanted)
    figures.equal(place.kind, "of those in the log", found, wanted)
    figures.equal(place.kind, "in the log twice", twice, 0)
    figures.equal(place.kind, "findings of the reader", report.log.findings, 0)
    figures.equal(place.kind, "data keys that are not as the trail says", len(report.differences or ()), 0)
    figures.equal(place.kind, "entries that still wait", report.waiting, 0)
    figures.tell(place.kind, "entries a second, written and sealed", wanted / seconds)
    per_million_s = verify_s / max(report.log.records_checked, 1) * MILLION
    if setting.is_full:
        figures.at_most(place.kind, "seconds to verify a million records", per_million_s, 30)
    else:
        figures.tell(place.kind, "seconds to verify a million records, from fewer", per_million_s)


def _options() -> AuditOptions:
    return AuditOptions(checkpoint_s=5.0)


def _begin(place: Place) -> None:
    async def main() -> None:
        async with place.manager(audit=_options()):
            pass

    asyncio.run(main())


def _write(place: Place, process: int, writers: int, each: int) -> int:
    """Write as so many writers, seal beside that, and return how many entries were written."""

    async def main() -> int:
        written = 0
        async with place.manager(audit=_options(), background=True) as km:

            async def write(writer: int) -> None:
                nonlocal written
                for number in range(each):
                    await km.audit.record(ACTION, process=process, writer=writer, number=number)
                    written += 1

            await asyncio.gather(*map(write, range(writers)))
            await km.audit.sequenced(timeout_s=TIMEOUT_S)
        return written

    return asyncio.run(main())


def _check(place: Place) -> tuple[AuditReport, int, int, float]:
    """Return what a reader finds, how many entries there are, how many are there twice, and the reader's seconds."""

    async def main() -> tuple[AuditReport, int, int, float]:
        async with place.manager(audit=_options()) as km:
            await km.audit.checkpoint(timeout_s=TIMEOUT_S)
            started = time.monotonic()
            report = await km.audit.verify(compares_store=True)
            seconds = time.monotonic() - started
            seen: set[tuple[int, int, int]] = set()
            count, after = 0, -1
            while page := await km.audit.entries(action=ACTION, after=after, limit=PAGE):
                found = [(each.details["process"], each.details["writer"], each.details["number"]) for each in page]
                count, after = count + len(found), page[-1].seq
                seen.update(found)
        return report, len(seen), count - len(seen), seconds

    report, found, twice, seconds = asyncio.run(main())
    # While it looked, its own session waited to be sealed, which a manager does when it is closed.
    report.waiting = int(rows(place, "SELECT count(*) FROM audit_entries")[0][0])
    return report, found, twice, seconds


def _rates(setting: Setting, figures: Figures, kind: str) -> None:
    """Compare transactions of a store that keeps a trail with those of one that keeps none, in turns."""
    count = setting.choose(short=100, full=2000)
    writers = setting.choose(short=4, full=8)
    places = [setting.databases.place(kind, setting.folder / f"{kind} {name}".lower()) for name in ("plain", "audited")]
    seconds: tuple[list[float], list[float]] = ([], [])
    for number in range(2 * ROUNDS):
        # One after the other, each in a process of its own: what one leaves to be sealed costs the other nothing.
        is_audited = number % 2 == 1
        seconds[is_audited].append(in_child(_transact, places[is_audited], count, writers, is_audited=is_audited))
    plain_s, audited_s = median(seconds[False]), median(seconds[True])
    figures.tell(kind, "transactions a second without a trail", count / plain_s)
    figures.tell(kind, "transactions a second with one, sealed beside them", count / audited_s)
    if setting.is_full:
        figures.at_least(kind, "rate of audited transactions", plain_s / audited_s, 0.7)
    else:
        figures.tell(kind, "rate of audited transactions", plain_s / audited_s)
    for place in places:
        place.drop()


def _transact(place: Place, count: int, writers: int, *, is_audited: bool) -> float:
    """Return the seconds of so many transactions of the store, and of sealing beside them where it keeps a trail."""

    async def main() -> float:
        audit = _options() if is_audited else None
        async with place.manager(audit=audit, background=True) as km:
            await _round(km, writers, writers)
            return await _round(km, count, writers)

    return asyncio.run(main())


async def _round(km: KeyManager, count: int, writers: int) -> float:
    numbers = iter(range(count))

    async def work() -> None:
        for number in numbers:
            await admin.declare_use(km, "default", f"use {number % 100}", "app:soak")

    started = time.monotonic()
    await asyncio.gather(*(work() for _ in range(writers)))
    return time.monotonic() - started
