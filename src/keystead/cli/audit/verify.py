"""``keystead audit verify``: whether the trail is as it was written, and the store as the trail says."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Final

import typer
from rich.console import Console, Group, RenderableType
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from keystead.cli.frame import NOT_VERIFIED, Call, say
from keystead.cli.log.policy import finding_out
from keystead.cli.log.verify import SHOWN
from keystead.cli.render import Outcome, table
from keystead.ledger import TrustPolicy
from keystead.ledger.audit.key_rows import KeyDifference
from keystead.ledger.audit.verifying import AuditReport
from keystead.ledger.tlog.note import MAX_NOTE_BYTES
from keystead.model.counts import counted

_WHAT: Final = {
    "state": "is {store} in the store, and the trail says {trail}",
    "row": "has another row in the store than the trail says",
    "absent": "is not in the store; the trail says {trail}",
    "unknown": "is {store} in the store, and the trail knows of none",
}


SinceCheckpoint = Annotated[
    str | None,
    typer.Option("--since-checkpoint", metavar="FILE", help="A checkpoint that was kept: the trail has to go on."),
]


def verify(
    call: Call,
    *,
    since_checkpoint: SinceCheckpoint = None,
    archive: Annotated[
        str | None, typer.Option("--archive", metavar="FOLDER", help="Where earlier records were moved to.")
    ] = None,
    policy: Annotated[
        str | None,
        typer.Option("--policy", metavar="FILE", help="What to trust; what the trail's own entries say if left out."),
    ] = None,
    compares_store: Annotated[
        bool, typer.Option("--compare-store", help="Compare each data key of the store with what the trail says.")
    ] = False,
    expect_closed: Annotated[
        bool, typer.Option("--expect-closed", help="No process is running: nothing may be missing at the end.")
    ] = False,
) -> Outcome:
    """Check every record and every entry of the trail, and that none is missing that was committed.

    Without --since-checkpoint an end that was cut off together with the state beside it is not found. Exit codes: 0
    as it was written; 3 changed, or the store differs from it; 4 could not be found out.
    """
    with finding_out():
        kept = read_kept(since_checkpoint)
        trusted = None if policy is None else TrustPolicy.load(policy)
        with _progress() as progress:
            report = call.run(
                lambda km: km.audit.verify(
                    policy=trusted,
                    since=kept,
                    archive=archive,
                    compares_store=compares_store,
                    expect_closed=expect_closed,
                    progress=progress,
                )
            )
    for warning in report.log.warnings:
        say(f"warning: {warning}")
    return Outcome(report.as_dict(), _shown(report), 0 if report.valid else NOT_VERIFIED)


def read_kept(file: str | None) -> bytes | None:
    """Return the checkpoint in a file that was kept, if one is named.

    Raises:
        CouldNotVerifyError: it cannot be read.
    """
    with finding_out():
        return None if file is None else Path(file).read_bytes()[: MAX_NOTE_BYTES + 1]


def _shown(report: AuditReport) -> RenderableType:
    log = report.log
    parts = [
        counted(log.records_checked, "record"),
        counted(report.entries, "entry", "entries"),
        f"{report.waiting} waiting",
    ]
    parts.append(f"vouched for up to record {log.vouched}" if log.vouched else "nothing vouches for it")
    if report.unchecked:
        parts.append(f"{counted(report.unchecked, 'entry', 'entries')} of sessions whose key is not at hand")
    state = "as it was written" if log.valid else f"NOT as it was written: {counted(log.findings, 'finding')}"
    shown: list[RenderableType] = [f"{log.stream}: {state} ({', '.join(parts)})"]
    if log.errors:
        rows = [(each.error_type.value, each.seq, each.file, each.message) for each in log.errors[:SHOWN]]
        shown.append(table("finding", "record", "where", "what", rows=rows))
    if report.differences is not None:
        count = len(report.differences)
        shown.append(
            "the store is as the trail says" if not count else f"the store DIFFERS in {counted(count, 'data key')}"
        )
        if count:
            rows = [(each.keyring, each.version, str(each.id), _difference(each)) for each in report.differences]
            shown.append(table("keyring", "version", "data key", "what", rows=rows[:SHOWN]))
    return Group(*shown)


def _difference(each: KeyDifference) -> str:
    return _WHAT[each.what].format(store=each.store, trail=each.trail)


@contextmanager
def _progress() -> Iterator[Callable[[int], object] | None]:
    """Count records on stderr, if somebody is there to see it."""
    if not sys.stderr.isatty():
        yield None
        return
    columns = (SpinnerColumn(), TextColumn("verifying, {task.completed} records"), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=None)
        yield lambda records: bar.advance(task, records)
