"""``keystead log verify``: whether a log is as it was written."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Final

import typer
from rich.console import Console, Group, RenderableType
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from keystead.cli.data import LARGE
from keystead.cli.frame import NOT_VERIFIED, Call, say, wrong_usage
from keystead.cli.log.policy import KeyEnv, Policy, finding_out, policy_of, providers_of, with_key_env
from keystead.cli.log.v1 import v1_files, verified_v1
from keystead.cli.render import Outcome, table
from keystead.errors import CouldNotVerifyError
from keystead.ledger import TrustPolicy, Verifier, VerifyReport
from keystead.ledger.reading.files import COMPANIONS, LogFiles, without_companions
from keystead.ledger.reading.report import MAX_FINDINGS
from keystead.ledger.reading.verifier import header_of
from keystead.ledger.tlog.note import MAX_NOTE_BYTES
from keystead.manager.logs import log_key
from keystead.model.counts import counted

SHOWN: Final = 50


def verify(
    call: Call,
    paths: Annotated[
        list[str],
        typer.Argument(
            metavar="PATH",
            help="The file that is written, with those that ended; a folder that holds the files of this log and of no "
            "other; some files.",
        ),
    ],
    *,
    policy: Policy = None,
    since_checkpoint: Annotated[
        str | None,
        typer.Option(
            "--since-checkpoint", metavar="FILE", help="A checkpoint that was kept: the log has to continue it."
        ),
    ] = None,
    expect_closed: Annotated[
        bool, typer.Option("--expect-closed", help="The log was closed: nothing may be missing at its end.")
    ] = False,
    key_env: KeyEnv = None,
) -> Outcome:
    """Check every record of a log, and every checkpoint in it, against a trust policy.

    Exit codes: 0 as it was written; 3 changed, or not as the policy asks; 4 could not be found out: a KMS, a file or
    the policy is out of reach. With --key-env and no policy only that key is trusted, and what stream it is the log
    says itself.
    """
    with finding_out():
        # Who names a policy, or asks for more than format 1 can tell, does not take its word for a log of Keystead.
        if not (policy or since_checkpoint or expect_closed) and (old := v1_files(paths)):
            return verified_v1(old, key_env)
        files = _files(paths)
        call = with_key_env(call, key_env)
        found = policy_of(policy, paths[0])
        if found is None and key_env is None:
            _require_there(files)
            wrong_usage(
                "name the trust policy that `keystead log seal` wrote: --policy FILE; or a shared key: --key-env VAR"
            )
        found = found or _of_key(call, files[0] if isinstance(files, list) else files)
        since = None if since_checkpoint is None else Path(since_checkpoint).read_bytes()[: MAX_NOTE_BYTES + 1]
        with Verifier(found, providers_of(call, found)) as verifier, _progress(files) as progress:
            report = verifier.verify(files, since, expect_closed=expect_closed, progress=progress)
    for warning in report.warnings:
        say(f"warning: {warning}")
    return Outcome(report.as_dict(), _shown(report, paths[0]), 0 if report.valid else NOT_VERIFIED)


def _files(paths: list[str]) -> str | list[str]:
    """Return what to verify: files that a shell listed, by their numbers and without what stands beside them."""
    if len(paths) == 1:
        return paths[0]
    headers = {str(path): header_of(path) for path in without_companions(map(Path, paths))}
    numbers = {path: header.file for path, header in headers.items() if header is not None}
    files = [path for path in headers if path in numbers or not path.endswith(COMPANIONS)]
    return sorted(files, key=numbers.__getitem__) if len(numbers) == len(files) else files


def _require_there(files: str | list[str]) -> None:
    """Raise ``CouldNotVerifyError`` if there is no such log: a policy would not help."""
    for path in map(Path, [files] if isinstance(files, str) else files):
        if not path.exists() and not LogFiles(path).ended():
            raise CouldNotVerifyError(f"{path} cannot be read: there is no such file")


def _of_key(call: Call, file: str) -> TrustPolicy:
    """Return the policy that trusts one KMS key and nothing else."""
    given = Path(file)
    first = next(iter(LogFiles(given).ended().values()), given) if not given.is_dir() else given
    header = None if given.is_dir() else header_of(first)
    if header is None:
        raise CouldNotVerifyError(f"{file} does not say what log it is; name its trust policy: --policy FILE")
    say(f"warning: without a policy only the key is checked, and {header.stream} is the log's own word")
    return TrustPolicy(header.stream, (log_key(call.settings()),))


def _shown(report: VerifyReport, path: str) -> RenderableType:
    state = "as it was written" if report.valid else f"NOT as it was written: {counted(report.findings, 'finding')}"
    parts = [
        counted(report.records_checked, "record"),
        counted(report.files, "file"),
        counted(report.sessions, "session"),
    ]
    parts.append("closed" if report.closed else "open")
    parts.append(f"vouched for up to record {report.vouched}" if report.vouched else "nothing vouches for it")
    told = f"{state} ({', '.join(parts)})"
    if report.valid:
        return f"{report.stream}: {told}"
    # The stream is the policy's word; what is wrong may be that the file is of another one.
    summary = f"{os.path.basename(os.path.abspath(path))}, as the log {report.stream}: {told}"
    rows = [
        (each.error_type.value, each.seq, f"{os.path.basename(each.file)}:{each.line}", each.offset, each.message)
        for each in report.errors[:SHOWN]
    ]
    more = report.findings - len(rows)
    made: list[RenderableType] = [summary, table("finding", "record", "file:line", "offset", "what", rows=rows)]
    rest = "them" if report.findings <= MAX_FINDINGS else f"the first {MAX_FINDINGS}"
    return Group(*made, f"and {more} more: --json shows {rest}") if more else Group(*made)


@contextmanager
def _progress(files: str | list[str]) -> Iterator[Callable[[int], object] | None]:
    """Show a bar on stderr for large logs, if somebody is there to see it."""
    total = sum(_size(Path(path)) for path in ([files] if isinstance(files, str) else files))
    if total < LARGE or not sys.stderr.isatty():
        yield None
        return
    columns = (TextColumn("verifying"), BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=total)
        yield lambda size: bar.advance(task, size)


def _size(path: Path) -> int:
    """Return the size of a log: of a folder's files, or of a file with those that ended before it."""
    if path.is_dir():
        files = list(path.iterdir())
    elif LogFiles.is_ended(path):
        files = [path]
    else:
        files = [*LogFiles(path).ended().values(), path]
    return sum(each.stat().st_size for each in files if each.is_file())
