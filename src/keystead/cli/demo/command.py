"""``keystead demo``: the main job on a real file: encrypt, rotate, crash, search, and re-encrypt under writes."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import IO, Annotated, Any, Final, cast

import typer
from rich.table import Table

from keystead.cli.demo.people import People, read_people
from keystead.cli.demo.table import DemoTable
from keystead.cli.demo.worker import manager
from keystead.cli.frame import FAILED, Call, command, say, wrong_usage
from keystead.cli.render import Outcome
from keystead.fields import reencrypt
from keystead.manager.admin import create_local_kek
from keystead.manager.manager import KeyManager
from keystead.model.counts import counted

ROTATIONS_BEFORE_KILL: Final = 5
SEARCHES: Final = 500
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
    """Encrypt a CSV file's personal columns, rotate, kill a rotation, search, re-encrypt under writes: lose nothing."""
    people = read_people(csv, columns.split(",") if columns else None)
    report = Report()
    say(f"{counted(len(people.rows), 'row')}, personal columns: {', '.join(people.personal)}")
    if keep is not None:
        if keep.exists():
            wrong_usage(f"--keep: {keep} exists already; name a new folder")
        keep.mkdir(parents=True)
        _run(keep.absolute(), people, report)
        say(f"Left in {keep}: people.db (look: no name can be read), keys.db, keystead.kek")
        say(f"To see the keys at the console: cd {keep}; keystead init; keystead serve --dev")
    else:
        with tempfile.TemporaryDirectory(prefix="keystead-demo-") as folder:
            _run(Path(folder), people, report)
    return Outcome(report.rows, _table(report))


def _run(folder: Path, people: People, report: Report) -> None:
    (folder / "columns.json").write_text(json.dumps({"columns": people.columns, "personal": people.personal}))
    create_local_kek(folder / "keystead.kek")
    table = DemoTable(folder / "people.db", people.columns, people.personal)
    table.create()
    asyncio.run(_encrypt(folder, table, people, report))

    found = _worker("check", folder)
    _require(found["digest"] == people.digest(), "the second process did not get the plaintext back")
    _require(len(found["versions"]) == 2, "the table is not under two versions")
    report.add(
        "decrypt all in a second process", f"{counted(found['cells'], 'cell')} equal", found["cells"], found["seconds"]
    )

    acknowledged = _killed_rotation(folder)
    (folder / "acknowledged.txt").write_text("\n".join(acknowledged))
    report.add("kill a third process in mid-rotation", f"after {counted(len(acknowledged), 'acknowledged message')}")

    found = _worker("check", folder)
    _require(found["digest"] == people.digest(), "rows were lost by the kill")
    _require(found["acknowledged"] == len(acknowledged), "an acknowledged message was lost by the kill")
    _require(len(found["active"]) == 1, "there is not exactly one active version")
    _require(found["versions"] == list(range(1, len(found["versions"]) + 1)), "version numbers have a gap")
    result = f"nothing lost: {counted(found['cells'], 'cell')} and {counted(len(acknowledged), 'message')} equal"
    report.add("decrypt all again", result, found["cells"], found["seconds"])
    report.add("versions", f"{len(found['versions'])}, exactly one active (version {found['active'][0]})")

    asyncio.run(_search(folder, table, people, report))
    asyncio.run(_reencrypt(folder, table, people, report))


async def _encrypt(folder: Path, table: DemoTable, people: People, report: Report) -> None:
    half = len(people.rows) // 2
    async with manager(folder) as km:
        await km.load_fields(*table.fields().values())
        for start, stop, name in ((0, half, "first"), (half, len(people.rows), "second")):
            started = time.perf_counter()
            table.insert(km, people, start, stop)
            cells = (stop - start) * len(people.personal)
            report.add(f"encrypt the {name} half", counted(cells, "cell"), cells, time.perf_counter() - started)
            if start == 0:
                started = time.perf_counter()
                new = await km.rotate_data_key()
                milliseconds = (time.perf_counter() - started) * 1000
                report.add("rotate", f"version {new.version} active after {milliseconds:.0f} ms, no row touched")


async def _search(folder: Path, table: DemoTable, people: People, report: Report) -> None:
    """Look people up by a value of the searched column, and compare with a look through the file."""
    rows_of: dict[str, list[int]] = {}
    for number, row in enumerate(people.rows):
        rows_of.setdefault(row[table.searched], []).append(number)
    async with manager(folder) as km:
        await km.load_fields(*table.fields().values())
        found = 0
        started = time.perf_counter()
        for value in islice(rows_of, SEARCHES):
            rows = table.find(km, value)
            _require(sorted(rows) == rows_of[value], "a search did not find all and only the right rows")
            found += len(rows)
        milliseconds = (time.perf_counter() - started) * 1000 / min(SEARCHES, len(rows_of))
        _require(table.find(km, "nobody has this") == [], "a search found what is not there")
        plan = table.explain(km)
    _require("USING INDEX" in plan and "SCAN" not in plan, f"a search does not use the index: {plan}")
    report.add(
        f"search {table.searched} by index",
        f"{counted(found, 'row')}, all and only the right ones; {milliseconds:.1f} ms",
    )


async def _reencrypt(folder: Path, table: DemoTable, people: People, report: Report) -> None:
    """Rotate, and move the whole table to the new version while another process changes it."""
    async with manager(folder) as km:
        await km.load_fields(*table.fields().values())
        await km.rotate_data_key()
        started = time.perf_counter()
        async with _writer(folder) as edits:
            rewritten = await _pass_over(km, table)
        seconds = time.perf_counter() - started
        for edit in edits:
            people.rows[edit["row"]][edit["column"]] = edit["value"]
        again = await _pass_over(km, table)
        _require(again == 0, "a second pass over the table still found something to do")
        keys = table.data_keys()
        active = (await km.get_active_data_key()).id
    _require(keys == {active}, "a row is still under an old version")
    found = _worker("check", folder)
    _require(found["digest"] == people.digest(), "a change made during the re-encryption was lost")
    report.add("re-encrypt while another process writes", f"{counted(rewritten, 'cell')} rewritten", rewritten, seconds)
    report.add("changes made meanwhile", f"{len(edits)}, every one kept; no cell left under an old version")


async def _pass_over(km: KeyManager, table: DemoTable) -> int:
    """Re-encrypt every personal column and return how many cells were rewritten."""
    reports = [await reencrypt(km, table.url, field) for field in table.fields().values()]
    _require(not any(report.failed for report in reports), "a cell could not be re-encrypted")
    return sum(report.rewritten for report in reports)


@asynccontextmanager
async def _writer(folder: Path) -> AsyncIterator[list[dict[str, Any]]]:
    """Have another process change cells for as long as the block runs; what it wrote is in the list afterwards."""
    command = [sys.executable, "-m", "keystead.cli.demo.worker", "edit", str(folder)]
    edits: list[dict[str, Any]] = []
    # Not waited for by blocking: this process may hold the store's lock, which the other one needs to begin.
    process = await asyncio.create_subprocess_exec(*command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    stdin, stdout = cast(asyncio.StreamWriter, process.stdin), cast(asyncio.StreamReader, process.stdout)
    first = await stdout.readline()
    # Read as it comes, or the pipe would be full after some hundred changes.
    rest = asyncio.create_task(stdout.read())
    try:
        yield edits
    finally:
        stdin.close()
        lines = first + await rest
        code = await process.wait()
    _require(code == 0, "the process that writes failed")
    edits += map(json.loads, lines.splitlines())


def _worker(step: str, folder: Path) -> dict[str, Any]:
    command = [sys.executable, "-m", "keystead.cli.demo.worker", step, str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=STEP_TIMEOUT_S, check=False)
    _require(done.returncode == 0, f"the process {step!r} failed:\n{done.stderr[-2000:]}")
    return cast(dict[str, Any], json.loads(done.stdout))


def _killed_rotation(folder: Path) -> list[str]:
    """Start a process that rotates without end, kill it while it does, and return what it had acknowledged."""
    command = [sys.executable, "-m", "keystead.cli.demo.worker", "rotate", str(folder)]
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
