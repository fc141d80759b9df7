"""The command: ``python -m soak [--short] [--json] [names...]``."""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import shutil
import sys
import tempfile
import time
import traceback
from pathlib import Path

import stamina

from keystead.manager import backup
from soak import report
from soak.figures import Figure, Setting
from soak.harness import preload
from soak.places import SQLITE, Place, databases
from soak.scenarios import SCENARIOS


def main() -> int:
    """Run the named scenarios, or all; return 1 if a bar was missed. A full run of all writes docs/evidence.md."""
    parser = argparse.ArgumentParser(prog="soak", description="crash, race, fuzz and load tests")
    parser.add_argument("--short", action="store_true", help="the short forms, as the test suite runs them")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON instead of a page")
    parser.add_argument("--write", action="store_true", help="write the sections of what runs into the page")
    parser.add_argument("names", nargs="*", metavar="name", help=", ".join(SCENARIOS))
    arguments = parser.parse_args()
    unknown = sorted(set(arguments.names) - set(SCENARIOS))
    if unknown:
        parser.error(f"no scenario {', '.join(unknown)}; there are {', '.join(SCENARIOS)}")
    # What goes wrong on purpose is no news; what goes wrong otherwise is a figure.
    logging.disable(logging.CRITICAL)
    # stamina tells structlog, where that is installed, and structlog writes between the figures.
    stamina.instrumentation.set_on_retry_hooks([])

    outcomes = []
    with databases() as made, tempfile.TemporaryDirectory(prefix="ks-soak-") as first:
        preload(lambda: start(made.place(SQLITE, Path(first) / "first")))
        for name in arguments.names or SCENARIOS:
            folder = Path(tempfile.mkdtemp(prefix="ks-soak-"))
            setting = Setting(not arguments.short, folder, made)
            outcome = run(name, setting)
            shutil.rmtree(folder, ignore_errors=True)
            outcomes.append(outcome)
            print(f"{name}: {'good' if outcome.is_good else 'BAD'}, {outcome.seconds:.1f} s", file=sys.stderr)
            if outcome.failure:
                print(outcome.failure, file=sys.stderr)
        is_whole = not arguments.short and not arguments.names
        page = report.PAGE.read_text(encoding="utf-8") if report.PAGE.exists() and not is_whole else ""
        run_now = arguments.names or SCENARIOS
        earlier = {name: text for name, text in report.sections(page).items() if name not in run_now}
        text = report.page(outcomes, " ".join(["python -m soak", *sys.argv[1:]]), made.server, earlier)
    if arguments.json:
        print(json.dumps([outcome.to_json() for outcome in outcomes]))
    else:
        print(text)
    if is_whole or arguments.write:
        report.PAGE.write_text(text, encoding="utf-8")
    return 0 if all(outcome.is_good for outcome in outcomes) else 1


def start(place: Place) -> None:
    """Use a store once, for the sake of what is imported."""

    async def main() -> None:
        async with place.manager() as km:
            await km.rotate_data_key()
            await backup.verify(km)

    asyncio.run(main())


def run(name: str, setting: Setting) -> report.Outcome:
    """Run one scenario; what stops it is part of its outcome."""
    scenario = SCENARIOS[name]
    started = time.monotonic()
    figures: list[Figure] = []
    failure = ""
    try:
        figures = scenario.run(setting)
    except Exception:
        failure = traceback.format_exc()
    return report.Outcome(scenario, figures, time.monotonic() - started, failure)


if __name__ == "__main__":
    sys.exit(main())
