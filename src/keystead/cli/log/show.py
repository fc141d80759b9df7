"""``keystead log inspect`` and ``keystead log tail``: what a log says. Nothing of it is checked."""

from __future__ import annotations

import os
import sys
import time
from itertools import islice
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from keystead.cli.frame import Call
from keystead.cli.log.policy import Log
from keystead.cli.render import Outcome, pairs, printable
from keystead.errors import InvalidInputError
from keystead.ledger.format.records import Record
from keystead.ledger.reading.files import LogFiles
from keystead.ledger.reading.following import LogFollower
from keystead.ledger.reading.overview import FileOverview, LogReader
from keystead.ledger.writing.piping import text_of
from keystead.model import utc_of
from keystead.model.counts import counted

LISTED: Final = 1000
_POLL_S: Final = 0.2
_SHOWN: Final = 120


def inspect(
    call: Call,
    file: Log,
    *,
    records: Annotated[bool, typer.Option("--records", help="List the records.")] = False,
    number: Annotated[int | None, typer.Option("--number", metavar="N", min=0, help="Only this record, whole.")] = None,
    since: Annotated[int, typer.Option("--since", metavar="N", min=0, help="List records from this one on.")] = 0,
    limit: Annotated[int, typer.Option("--limit", min=1, help="How many are listed.")] = LISTED,
) -> Outcome:
    """Say what a log says of itself: files, sessions, epochs, checkpoints, sizes. Needs no key, and verifies nothing.

    A record is shown with its number (seq), authentication code (mac), algorithm (algo) and KMS key (key_id).
    """
    given = Path(file)
    files = [given] if LogFiles.is_ended(given) else LogFollower(given).files()
    if not files:
        raise InvalidInputError(f"{file} is no log" + ("" if given.exists() else ": there is no such file"))
    if number is not None or records:
        begin = since if number is None else number
        found = [
            told for each in files for record, told in LogReader(each).records()
            if record.number >= begin and (number is None or record.number == number)
        ] if number is not None else list(islice(_records(files, begin), limit))  # fmt: skip
        if number is not None and not found:
            raise InvalidInputError(f"{file} has no record {number}")
        return Outcome({"records": found}, pairs(list(found[0].items())) if number is not None else _listed(found))
    seen = [LogReader(each).read() for each in files]
    return Outcome({"files": seen}, "\n\n".join(_file(each) for each in seen))


def tail(
    call: Call,
    file: Log,
    *,
    follow: Annotated[
        bool, typer.Option("-f", "--follow", help="Go on with what is written, from file to file.")
    ] = False,
    lines: Annotated[
        int, typer.Option("-n", "--lines", metavar="N", min=0, help="How many records to begin with.")
    ] = 10,
    since: Annotated[
        int | None, typer.Option("--since", metavar="N", min=0, help="From this record on instead.")
    ] = None,
) -> Outcome | None:
    """Print what the application logged, and nothing of the log's own. Needs no key, and verifies nothing.

    A text is printed as it came in, any other value as it is. With --json one object a line: seq, time_ms, payload.
    """
    follower = LogFollower(file, _wait if follow else lambda: False)
    found = follower.since(since) if since is not None else follower.last(lines)
    try:
        for record in found:
            if record.kind is None:
                _print(record, is_json=call.is_json)
    except KeyboardInterrupt:
        pass
    sys.stdout.buffer.flush()
    return None


def _records(files: list[Path], begin: int) -> Any:
    for each in files:
        for record, told in LogReader(each).records():
            if record.number >= begin:
                yield told


def _wait() -> bool:
    sys.stdout.buffer.flush()
    time.sleep(_POLL_S)
    return True


def _print(record: Record, *, is_json: bool) -> None:
    if is_json:
        import json

        payload = record.payload.decode("utf-8", "backslashreplace")
        line = json.dumps({"seq": record.number, "time_ms": record.time_ms, "payload": payload}).encode()
    else:
        line = text_of(record.payload)
        if sys.stdout.isatty():
            line = printable(line.decode("utf-8", "backslashreplace")).encode()
    sys.stdout.buffer.write(line + b"\n")


def _listed(found: list[dict[str, Any]]) -> str:
    lines = []
    for each in found:
        kind = each["kind"] or "-"
        payload = printable(each["payload"])
        payload = payload if len(payload) <= _SHOWN else payload[: _SHOWN - 3] + "..."
        lines.append(f"{each['seq']:>8}  {_when(each['time_ms'])}  {kind:<10}  {each['mac'][:12]}  {payload}")
    return "\n".join(lines)


def _when(ms: int) -> str:
    try:
        return utc_of(ms).strftime("%Y-%m-%d %H:%M:%S.%f")[:-3] + "Z"
    except (OverflowError, ValueError, OSError):
        return str(ms)


def _file(seen: FileOverview) -> str:
    size = counted(seen.size_bytes, "byte") + (", compressed" if seen.is_compressed else "")
    last_record, payload = seen.first + seen.records - 1, counted(seen.payload_bytes, "byte")
    lines: list[tuple[str, object]] = [
        ("file", f"{os.path.basename(seen.path)}, number {seen.file} of {seen.stream} ({size})"),
        ("records", f"{seen.first} to {last_record}, {payload} of payload"),
        ("kinds", ", ".join(f"{count} {kind}" for kind, count in sorted(seen.kinds.items()))),
        ("time", f"{_when(seen.first_ms)} to {_when(seen.last_ms)}"),
    ]
    for each in seen.sessions:
        key = each["key_id"] or "no key"
        epochs = f"records in {counted(each['epochs'], 'epoch')} of {each['epoch_s']} s"
        told = f"{each['id']} {each['algorithm']}, {key}, {epochs}"
        lines.append(("session", f"{told}, since {_when(each['start_ms'])}"))
    if seen.checkpoints:
        last = seen.checkpoints[-1]
        covered, signed = counted(last["size"], "record"), ", ".join(last["signatures"])
        lines.append(("checkpoints", f"{len(seen.checkpoints)}; the last one over {covered} by {signed}"))
    if seen.junk_bytes:
        lines.append(("no record", f"{counted(seen.junk_bytes, 'byte')}, as a crash leaves them"))
    ends = {None: "open", "closed": "closed"}.get(seen.ends, f"goes on in file {seen.ends}")  # type: ignore[arg-type]
    return printable(pairs([*lines, ("end", ends)]))
