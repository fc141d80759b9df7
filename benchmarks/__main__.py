"""Run all benchmarks in one process and write the page and its plot."""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import tempfile
from pathlib import Path

from benchmarks import fapilog, ledger, machine, operations, plot, reencryption, report
from benchmarks.results import DECRYPT, ENCRYPT, SIZES, Results
from benchmarks.subjects import Absent, Subject, all_subjects
from benchmarks.timing import Loop, measure
from keystead import KeyManager

DOCS = Path(__file__).resolve().parent.parent / "docs"


def main() -> int:
    options = _options()
    facts = machine.facts()
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
    print(report.summary(results))
    return 0


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
    )


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
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
