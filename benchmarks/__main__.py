"""Run all benchmarks in one process and write the page and its plot; or the key service's; or draw the evidence."""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import tempfile
from pathlib import Path
from typing import Final

from benchmarks import (
    django,
    evidence,
    evidence_plot,
    fapilog,
    ledger,
    machine,
    markdown,
    operations,
    parquet,
    plot,
    reencryption,
    report,
    service,
    service_page,
)
from benchmarks.results import DECRYPT, ENCRYPT, SIZES, Results
from benchmarks.subjects import Absent, Subject, all_subjects
from benchmarks.timing import Loop, measure
from keystead import KeyManager

DOCS: Final = Path(__file__).resolve().parent.parent / "docs"
SERVICE: Final = "service"
EVIDENCE: Final = "evidence"
_PART: Final = (
    f"{SERVICE}: measure it alone, and write its section; {EVIDENCE}: draw the plot of what stands on its page"
)
FULL_ROUNDS: Final = 50
"""Rounds over what is compared from which the key service is measured at full length, too."""


def main() -> int:
    options = _options()
    if options.part == EVIDENCE:
        page = (options.docs / "evidence.md").read_text(encoding="utf-8")
        evidence_plot.draw(evidence.scenarios(page), options.docs / "assets" / "evidence.svg")
        return 0
    facts = machine.facts()
    if options.part == SERVICE:
        return _service_alone(facts, options)
    with asyncio.Runner() as runner, tempfile.TemporaryDirectory() as folder:
        manager = operations.open_manager(Path(folder))
        runner.run(manager.initialize())
        try:
            results = _run(manager, Path(folder), runner, facts, options)
        finally:
            runner.run(manager.close())
    assets = options.docs / "assets"
    assets.mkdir(parents=True, exist_ok=True)
    plot.draw(results, assets / "benchmarks.svg")
    (options.docs / "benchmarks.md").write_text(report.page(results, cell_ms=options.cell_ms), encoding="utf-8")
    print(markdown.summary([*results.bars(), *service_page.bars(results.service)]))
    return 0


def _service_alone(facts: dict[str, str], options: argparse.Namespace) -> int:
    with tempfile.TemporaryDirectory() as folder:
        figures = _service(Path(folder), options)
    page = options.docs / "benchmarks.md"
    written = page.read_text(encoding="utf-8") if page.exists() else ""
    page.write_text(service_page.replaced(written, service_page.section(figures, facts)), encoding="utf-8")
    print(markdown.summary(service_page.bars(figures)))
    return 0


def _service(folder: Path, options: argparse.Namespace) -> service.ServiceFigures:
    _say("the key service")
    folder /= "service"
    folder.mkdir()
    return service.run(folder, service.FULL if options.rounds >= FULL_ROUNDS else service.SHORT)


def _run(
    manager: KeyManager, folder: Path, runner: asyncio.Runner, facts: dict[str, str], options: argparse.Namespace
) -> Results:
    found = list(all_subjects(manager))
    subjects = [subject for subject in found if isinstance(subject, Subject)]
    groups: dict[tuple[int, str], dict[str, Loop]] = {}
    sizes: dict[str, int] = {}
    for size in SIZES:
        plaintext = os.urandom(size)
        for subject in subjects:
            encrypt, decrypt, output = subject.loops(plaintext)
            groups.setdefault((size, ENCRYPT), {})[subject.name] = encrypt
            groups.setdefault((size, DECRYPT), {})[subject.name] = decrypt
            sizes[subject.name] = min(output, sizes.get(subject.name, output))
    _say(f"{len(subjects)} subjects, {len(groups)} cells each, {options.rounds} rounds")
    samples = measure(list(groups.values()), rounds=options.rounds, cell_ms=options.cell_ms)
    _say("encrypted fields, re-encryption")
    fields = reencryption.run(manager, folder, runner, rounds=options.rounds, cell_ms=options.cell_ms)
    _say("a sealed log")
    log = ledger.run(folder, rounds=max(3, options.rounds // 3))
    _say("a sealed log, through fapilog")
    through_fapilog = fapilog.run(folder, rounds=max(3, options.rounds // 3))
    _say("Parquet files")
    files = parquet.run(folder, rounds=max(3, options.rounds // 5))
    _say("rows of a Django model")
    of_django = django.run(folder, rounds=max(3, options.rounds // 10))
    of_service = _service(folder, options)
    _say("lookups, streams, start, rotation")
    return Results(
        machine=facts,
        rounds=options.rounds,
        subjects=subjects,
        absent=[absent for absent in found if isinstance(absent, Absent)],
        samples=dict(zip(groups, samples, strict=True)),
        sizes=sizes,
        operations=operations.run(manager, folder, runner, rounds=options.rounds, cell_ms=options.cell_ms),
        fields=fields,
        log=log,
        fapilog=through_fapilog,
        parquet=files,
        django=of_django,
        service=of_service,
    )


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("part", nargs="?", choices=[SERVICE, EVIDENCE], help=_PART)
    parser.add_argument("--rounds", type=int, default=101, help="rounds over all that is compared (default 101)")
    parser.add_argument("--cell-ms", type=float, default=4.0, help="milliseconds a subject gets a round (default 4)")
    parser.add_argument("--docs", type=Path, default=DOCS, help="folder to write to (default: the project's docs)")
    options = parser.parse_args()
    if options.rounds < 3 or options.cell_ms <= 0:
        parser.error("--rounds is at least 3, --cell-ms above zero")
    return options


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
