"""``keystead reencrypt`` and ``keystead reencryption``: rows of a live table, brought to the keys of now."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Annotated, Any, Final
from uuid import UUID

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from keystead import fields
from keystead.cli import lists, wishes
from keystead.cli.frame import FAILED, Call, command, duration_option, group, say, wrong_usage
from keystead.cli.importing import ImportFormat, ImportOptions, ImportUntil, KeyFiles, KeyVariables, Wish, wish
from keystead.cli.render import Outcome, moment, pairs, table
from keystead.errors import InvalidCiphertextError, InvalidInputError
from keystead.fields import (
    Exact,
    Field,
    Index,
    Normalised,
    Prefix,
    ReencryptPlan,
    ReencryptProgress,
    ReencryptReport,
    Tokens,
)
from keystead.fields.commands import command_of
from keystead.fields.plan_text import KeptPlan
from keystead.fields.standing import ReencryptionStanding, failures, newest_reencryptions, standing
from keystead.manager.manager import KeyManager
from keystead.model import utc_of
from keystead.model.counts import counted
from keystead.ports import ReencryptionState, RowFailure

_NORMALISED: Final = ("text", "email", "phone")
_INDEXES: Final = "exact, exact,unique, email, phone, text, prefix:LENGTH or tokens; each may end in ,size:BYTES"
_IN_CLEAR: Final = (
    f"{InvalidCiphertextError.code}: what stands there is no ciphertext. Values in clear are encrypted from a column "
    "of their own into an empty one beside it: name it with --plaintext-column"
)
_NOT_CLEAR: Final = (
    f"{InvalidInputError.code}: what stands in the plaintext column is not of the type, or has another value than the "
    "ciphertext beside it, or was encrypted by another library, which --import names"
)

Job = Annotated[str, typer.Argument(metavar="ID", help="The job, as `keystead reencryption list` shows it.")]


def register(app: typer.Typer) -> None:
    """Add the command, and the group for its jobs."""
    command(app, "reencrypt")(reencrypt)
    noun = group(app, "reencryption", "Re-encryptions: ask, list, show, pause, resume, cancel.")
    command(noun, "list")(list_jobs)
    command(noun, "show")(show)
    command(noun, "pause")(pause)
    command(noun, "resume")(resume)
    command(noun, "cancel")(cancel)
    wishes.register(noun)


def reencrypt(
    call: Call,
    url: Annotated[
        str, typer.Argument(metavar="URL", help="The application's database; a password belongs in PGPASSWORD.")
    ],
    target: Annotated[str, typer.Argument(metavar="TABLE.COLUMN", help="The column that holds the ciphertexts.")],
    *,
    type: Annotated[str, typer.Option(metavar="TYPE", help="Of its values: text, bytes, integer, date...")] = "text",
    record: Annotated[
        str, typer.Option(metavar="COLUMNS", help="What says which record a row is, separated by commas.")
    ] = "id",
    tenant: Annotated[str | None, typer.Option(metavar="COLUMN", help="The column that names the tenant.")] = None,
    per_subject: Annotated[
        bool, typer.Option("--per-subject", help="Each record is a subject, under keys of its own.")
    ] = False,
    subject: Annotated[
        str | None, typer.Option(metavar="COLUMN", help="The column that names the subject, if not the record.")
    ] = None,
    subject_kind: Annotated[
        str, typer.Option(metavar="KIND", help="Of which kind subjects are, mostly a table; with --subject.")
    ] = "",
    uuid: Annotated[
        list[str] | None,
        typer.Option(
            metavar="COLUMN",
            help="A record, tenant or subject column that keeps UUIDs as text or bytes; again for more.",
        ),
    ] = None,
    no_uuid: Annotated[
        list[str] | None,
        typer.Option("--no-uuid", metavar="COLUMN", help="One that keeps texts which only look like UUIDs."),
    ] = None,
    keyring: Annotated[str, typer.Option(metavar="NAME", help="The field's keyring; may hold {tenant}.")] = "default",
    former_keyring: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="A keyring that values are under still; again for more.")
    ] = None,
    index: Annotated[
        list[str] | None, typer.Option(metavar="INDEX", help=f"A blind index: {_INDEXES}. Again for more.")
    ] = None,
    index_keyring: Annotated[str, typer.Option(metavar="NAME", help="The keyring of its index keys.")] = "index",
    id: Annotated[str, typer.Option(metavar="ID", help="The field's id, if not TABLE.COLUMN.")] = "",
    encrypt_null: Annotated[bool, typer.Option("--encrypt-null", help="The field encrypts nothing as well.")] = False,
    key: Annotated[
        str | None, typer.Option(metavar="COLUMNS", help="What to read rows by, if not the primary key.")
    ] = None,
    plaintext_column: Annotated[
        str | None, typer.Option(metavar="COLUMN", help="Holds values in clear, to be encrypted and emptied.")
    ] = None,
    import_: ImportFormat = None,
    import_until: ImportUntil = None,
    import_key_file: KeyFiles = None,
    import_key_env: KeyVariables = None,
    import_option: ImportOptions = None,
    batch_rows: Annotated[int, typer.Option(min=1, help="Rows read and written at once.")] = fields.BATCH_ROWS,
    workers: Annotated[int, typer.Option(min=1, help="Threads; several commands share a job as well.")] = 1,
    rate: Annotated[float | None, typer.Option(metavar="ROWS", help="At most so many rows a second.")] = None,
    again: Annotated[bool, typer.Option("--again", help="Begin anew instead of going on where a job stopped.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Read and decrypt everything, and write nothing.")] = False,
    plan: Annotated[bool, typer.Option("--plan", help="Count the rows and estimate the time; write nothing.")] = False,
    wait: Annotated[
        bool, typer.Option("--wait", help="Do so whenever it is asked for: by `reencryption ask`, REST or the console.")
    ] = False,
    once: Annotated[bool, typer.Option("--once", help="With --wait: do what was asked for by now, and end.")] = False,
    poll: Annotated[str, typer.Option(metavar="DURATION", help="With --wait: how often the store is asked.")] = "15s",
) -> Outcome:
    """Bring every row to the active data key and index keys, while the application goes on using it.

    An edit by the application always wins. After a crash the same command goes on where it stopped; several at once
    share the work. With --wait it does so whenever somebody asks for it, until it is interrupted. Exits with 1 when
    rows had to be left as they are, or the job was paused or cancelled.
    """
    where, _, column = target.rpartition(".")
    if not where or not column:
        wrong_usage("what to re-encrypt is named TABLE.COLUMN")
    kinds = {**dict.fromkeys(uuid or (), UUID), **dict.fromkeys(no_uuid or (), str)}
    field = Field(
        where,
        column,
        type=type,
        record=_names(record),
        record_type=tuple(map(kinds.get, _names(record))),
        tenant=tenant,
        tenant_type=kinds.get(tenant or ""),
        per_subject=per_subject,
        subject=subject,
        subject_kind=subject_kind,
        subject_type=kinds.get(subject or ""),
        keyring=keyring,
        former_keyrings=tuple(former_keyring or ()),
        indexes=tuple(map(parse_index, index or ())),
        index_keyring=index_keyring,
        id=id,
        encrypt_null=encrypt_null,
    )
    key_column = None if key is None else _names(key)
    old = wish(import_, import_until, import_key_file, import_key_env, import_option)
    if wait:
        if plan or dry_run or again:
            wrong_usage("--wait does what is asked for: leave out --plan, --dry-run and --again")
        done = call.run(
            partial(
                wishes.wait,
                url,
                field,
                old,
                key_column=key_column,
                batch_rows=batch_rows,
                workers=workers,
                rows_per_s=rate,
                plaintext_column=plaintext_column,
                poll_s=duration_option("--poll", poll).total_seconds(),
                once=once,
            )
        )
        return Outcome({"done": done}, f"{counted(done, 'wish', 'wishes')} done")
    if plan:
        found = call.run(partial(_planned, url, field, old, key_column=key_column, plaintext_column=plaintext_column))
        return Outcome(found, wishes.kept_plan_text(KeptPlan(found)))
    with progress_of(field.id) as tick:
        report = call.run(
            partial(
                _reencrypted,
                url,
                field,
                old,
                key_column=key_column,
                batch_rows=batch_rows,
                workers=workers,
                rows_per_s=rate,
                dry_run=dry_run,
                plaintext_column=plaintext_column,
                resume=not again,
                on_progress=tick,
            )
        )
    for failure in report.failures:
        say(f"left as it is: row {failure.key}: {failure.reason}")
    if any(failure.reason == InvalidCiphertextError.code for failure in report.failures):
        say(_IN_CLEAR)
    if plaintext_column and any(failure.reason == InvalidInputError.code for failure in report.failures):
        say(_NOT_CLEAR)
    return Outcome(report, report_text(report), 0 if report.is_complete else FAILED)


async def _planned(url: str, field: Field, old: Wish, km: KeyManager, **options: Any) -> ReencryptPlan:
    async with old.opened(km) as reading:
        return await fields.plan(km, url, field, importer=reading, **options)


async def _reencrypted(url: str, field: Field, old: Wish, km: KeyManager, **options: Any) -> ReencryptReport:
    async with old.opened(km) as reading:
        return await fields.reencrypt(km, url, field, importer=reading, **options)


def list_jobs(
    call: Call,
    field: Annotated[str | None, typer.Argument(metavar="FIELD", help="Only this field's.")] = None,
    after: lists.After = None,
) -> Outcome:
    """List re-encryption jobs, newest first."""
    place = lists.begun_before(after)
    some = call.run(lambda km: newest_reencryptions(km, field, before=place, limit=lists.LIMIT + 1))
    found, behind = lists.part_of(some, lambda job: f"{job.created_ms},{job.id}")
    rows = [
        (
            job.id,
            job.field_id,
            job.state,
            job.rows_total or "-",
            moment(utc_of(job.created_ms)),
            moment(utc_of(job.updated_ms)),
        )
        for job in found
    ]
    shown = table("job", "field", "state", "rows", "begun", "changed", rows=rows)
    return Outcome({"jobs": found, "next": behind}, shown if rows else "no re-encryption jobs")


def show(call: Call, job: Job) -> Outcome:
    """Show how far a job is over all its workers, or how it ended, and which rows it left as they are."""

    async def find(km: KeyManager) -> tuple[ReencryptionStanding, list[RowFailure]]:
        return await standing(km, job), await failures(km, job)

    found, left = call.run(find)
    totals, lasted, again = found.totals, found.lasted_s, command_of(found.job)
    lines: list[tuple[str, object]] = [
        ("field", found.job.field_id),
        ("state", f"{found.job.state}{', worked on' if found.is_worked_on else ''}"),
        ("rows looked at", f"{totals.read} of {'-' if found.rows is None else found.rows}"),
        ("would rewrite" if found.job.dry_run else "rewritten", totals.rewritten),
        ("nothing to do", totals.skipped),
        ("edited or held meanwhile", totals.contended),
        ("left as it is", totals.failed),
        *([("of forgotten subjects", totals.erased)] if totals.erased else []),
        ("begun", moment(utc_of(found.job.created_ms))),
        ("changed", moment(utc_of(found.job.updated_ms))),
        *([("seconds", f"{lasted:.1f}")] if lasted is not None else []),
        *([("command", again)] if again is not None else []),
    ]
    for failure in left:
        say(f"left as it is: row {failure.key}: {failure.reason}")
    data = {"job": found.job, "totals": totals, "failures": left, "seconds": lasted, "command": again}
    return Outcome(data, pairs(lines))


def pause(call: Call, job: Job) -> Outcome:
    """Let a job's workers stop after the batch at hand, wherever they run."""
    record = call.run(lambda km: fields.pause(km, job))
    return Outcome(record, f"re-encryption {job} is paused; `keystead reencrypt` or `reencryption resume` goes on")


def resume(call: Call, job: Job) -> Outcome:
    """Let a paused job go on; a worker that waits, or the next `keystead reencrypt` of its column, does the work."""
    record = call.run(lambda km: fields.resume(km, job))
    return Outcome(record, f"re-encryption {job} may go on")


def cancel(call: Call, job: Job) -> Outcome:
    """End a job for good; what it has written stays."""
    record = call.run(lambda km: fields.cancel(km, job))
    return Outcome(record, f"re-encryption {job} is cancelled")


def parse_index(text: str) -> Index:
    """Return the index that an option describes."""
    kind, *options = [part.strip() for part in text.split(",")]
    name, _, length = kind.partition(":")
    given: dict[str, Any] = {}
    for option in options:
        word, _, number = option.partition(":")
        if option == "unique":
            given["unique"] = True
        elif word == "size" and number.isdigit():
            given["size"] = int(number)
        else:
            wrong_usage(f"--index reads {_INDEXES}")
    kinds: dict[str, Callable[..., Index]] = {"exact": Exact, "tokens": Tokens}
    kinds |= {each: partial(Normalised, as_=each) for each in _NORMALISED}
    if name == "prefix" and length.isdigit():
        kinds[kind] = partial(Prefix, length=int(length))
    if kind not in kinds:
        wrong_usage(f"--index reads {_INDEXES}")
    try:
        return kinds[kind](**given)
    except InvalidInputError as exc:
        wrong_usage(f"--index: {exc}")


@contextmanager
def progress_of(what: str) -> Iterator[Callable[[ReencryptProgress], None] | None]:
    """Show a bar on stderr, if somebody is there to see it."""
    if not sys.stderr.isatty():
        yield None
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=None)
        yield lambda progress: bar.update(task, total=progress.total, completed=progress.read)


def _names(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


def report_text(report: ReencryptReport) -> str:
    """Return a report for a person."""
    lines: list[tuple[str, object]] = [
        ("would rewrite" if report.dry_run else "rewritten", report.rewritten),
        *([("of them imported", report.imported)] if report.imported else []),
        ("nothing to do", report.skipped),
        ("edited or held meanwhile", report.contended),
        ("left as it is", report.failed),
        *([("of forgotten subjects", report.erased)] if report.erased else []),
        ("seconds", f"{report.seconds:.1f}"),
        ("job", f"{report.job_id}, {report.state}"),
    ]
    if report.passed_by:
        lines.append(("passed by, run again", report.passed_by))
    if report.indexed_version is not None:
        ended = "; the rotation of the index key has ended" if report.finished_rotation else ""
        lines.append(("indexes filled for", f"version {report.indexed_version}{ended}"))
    if report.state is ReencryptionState.PAUSED:
        lines.append(("go on with", "the same command"))
    return pairs(lines)
