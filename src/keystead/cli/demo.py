"""``keystead demo``: the main job on a real file, ending with a process killed in mid-rotation."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Annotated, Any, Final, cast

import typer
from rich.table import Table

from keystead.cli.demo_people import People, create_table, insert, read_people
from keystead.cli.demo_worker import manager
from keystead.cli.frame import FAILED, Call, command, say, wrong_usage
from keystead.cli.render import Outcome
from keystead.manager.admin import create_local_kek

ROTATIONS_BEFORE_KILL: Final = 5
STEP_TIMEOUT_S: Final = 600


@dataclass
class Report:
    """What the demonstration saw, row by row; every row is something that was checked."""

    rows: list[dict[str, Any]] = field(default_factory=list)

    def add(self, step: str, result: str, cells: int = 0, seconds: float = 0.0) -> None:
        """Note a step, how it ended, and its rate where it has one."""
        rate = round(cells / seconds) if cells and seconds else None
        self.rows.append({"step": step, "result": result, "cells_per_s": rate})


def register(app: typer.Typer) -> None:
    """Add the command."""
    command(app, "demo")(demo)


def demo(
    call: Call,
    csv: Annotated[Path | None, typer.Argument(help="A CSV file of yours; otherwise 10 000 invented people.")] = None,
    columns: Annotated[str | None, typer.Option(help="Its personal columns, with commas between.")] = None,
    keep: Annotated[Path | None, typer.Option(help="A new folder to leave the encrypted table and keys in.")] = None,
) -> Outcome:
    """Encrypt a CSV file's personal columns, rotate, decrypt in another process, kill a rotation, lose nothing."""
    people = read_people(csv, columns.split(",") if columns else None)
    report = Report()
    say(f"{len(people.rows)} rows, personal columns: {', '.join(people.personal)}")
    if keep is not None:
        if keep.exists():
            wrong_usage(f"--keep: {keep} exists already; name a new folder")
        keep.mkdir(parents=True)
        _run(keep.absolute(), people, report)
        say(f"Left in {keep}: people.db (look: no name can be read), keys.db, keystead.kek")
    else:
        with tempfile.TemporaryDirectory(prefix="keystead-demo-") as folder:
            _run(Path(folder), people, report)
    return Outcome(report.rows, _table(report))


def _run(folder: Path, people: People, report: Report) -> None:
    (folder / "personal.json").write_text(json.dumps(people.personal))
    create_local_kek(folder / "keystead.kek")
    create_table(folder / "people.db", people)
    asyncio.run(_encrypt(folder, people, report))

    found = _worker("check", folder)
    _require(found["digest"] == people.digest(), "the second process did not get the plaintext back")
    _require(len(found["versions"]) == 2, "the table is not under two versions")
    report.add("decrypt all in a second process", f"{found['cells']} cells equal", found["cells"], found["seconds"])

    acknowledged = _killed_rotation(folder)
    (folder / "acknowledged.txt").write_text("\n".join(acknowledged))
    report.add("kill a third process in mid-rotation", f"after {len(acknowledged)} acknowledged messages")

    found = _worker("check", folder)
    _require(found["digest"] == people.digest(), "rows were lost by the kill")
    _require(found["acknowledged"] == len(acknowledged), "an acknowledged message was lost by the kill")
    _require(len(found["active"]) == 1, "there is not exactly one active version")
    _require(found["versions"] == list(range(1, len(found["versions"]) + 1)), "version numbers have a gap")
    result = f"nothing lost: {found['cells']} cells and {len(acknowledged)} messages equal"
    report.add("decrypt all again", result, found["cells"], found["seconds"])
    report.add("versions", f"{len(found['versions'])}, exactly one active (version {found['active'][0]})")


async def _encrypt(folder: Path, people: People, report: Report) -> None:
    half = len(people.rows) // 2
    async with manager(folder) as km:
        for start, stop, name in ((0, half, "first"), (half, len(people.rows), "second")):
            started = time.perf_counter()
            insert(folder / "people.db", people, start, stop, km.local_encrypt)
            cells = (stop - start) * len(people.personal)
            report.add(f"encrypt the {name} half", f"{cells} cells", cells, time.perf_counter() - started)
            if start == 0:
                started = time.perf_counter()
                new = await km.rotate_data_key()
                milliseconds = (time.perf_counter() - started) * 1000
                report.add("rotate", f"version {new.version} active after {milliseconds:.0f} ms, no row touched")


def _worker(step: str, folder: Path) -> dict[str, Any]:
    command = [sys.executable, "-m", "keystead.cli.demo_worker", step, str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=STEP_TIMEOUT_S, check=False)
    _require(done.returncode == 0, f"the process {step!r} failed:\n{done.stderr[-2000:]}")
    return cast(dict[str, Any], json.loads(done.stdout))


def _killed_rotation(folder: Path) -> list[str]:
    """Start a process that rotates without end, kill it while it does, and return what it had acknowledged."""
    command = [sys.executable, "-m", "keystead.cli.demo_worker", "rotate", str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        lines: list[str] = []
        stdout = cast(IO[str], process.stdout)
        for line in stdout:
            lines.append(line.strip())
            if len(lines) == ROTATIONS_BEFORE_KILL:
                # The line is printed right before a rotation begins: this hits it in the middle.
                process.send_signal(signal.SIGKILL)
                break
        rest = stdout.read()
    _require(len(lines) == ROTATIONS_BEFORE_KILL, "the rotating process ended by itself")
    return lines + [line.strip() for line in rest.splitlines(keepends=True) if line.endswith("\n")]


def _require(is_true: bool, failure: str) -> None:
    if not is_true:
        say(f"the demonstration failed: {failure}")
        raise typer.Exit(FAILED)


def _table(report: Report) -> Table:
    table = Table(title="What was done, and what came back")
    table.add_column("step")
    table.add_column("result")
    table.add_column("cells/s", justify="right")
    for row in report.rows:
        rate = f"{row['cells_per_s']:,}".replace(",", " ") if row["cells_per_s"] else ""
        table.add_row(row["step"], row["result"], rate)
    return table
