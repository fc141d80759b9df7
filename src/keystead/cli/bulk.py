"""``keystead bulk``: Parquet datasets that are larger than one process."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from enum import StrEnum
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, NoReturn

import typer

from keystead.cli.bars import byte_bar
from keystead.cli.frame import FAILED, NOT_VERIFIED, Call, command, group, say, wrong_usage
from keystead.cli.render import Outcome, pairs, printable
from keystead.errors.extras import needing

if TYPE_CHECKING:
    from keystead import blocking
    from keystead.bulk import BulkEngine, BulkPlan, BulkReport, KeyRules

_TOLD: Final = 20
_WHO: Final = "Who does it"
_COLUMNS: Final = "Which columns are under which keyring"


class EngineName(StrEnum):
    """The engines."""

    INLINE = "inline"
    PROCESSES = "processes"
    DASK = "dask"


class PlannedName(StrEnum):
    """What can be planned."""

    ENCRYPT = "encrypt"
    REENCRYPT = "reencrypt"
    ROTATE = "rotate"
    VERIFY = "verify"


Source = Annotated[str, typer.Argument(metavar="SOURCE", help="A folder of .parquet files, in folders of any depth.")]
Dataset = Annotated[str, typer.Argument(metavar="DATASET", help="The folder of an encrypted dataset.")]


class _Options(dict[str, tuple[Any, Any]]):
    """Options that several commands share: of each its annotation and its default."""

    def parameters(self) -> list[inspect.Parameter]:
        """Return them as parameters of a command."""
        kind = inspect.Parameter.KEYWORD_ONLY
        return [
            inspect.Parameter(name, kind, annotation=annotation, default=default)
            for name, (annotation, default) in self.items()
        ]


def _option(panel: str, kind: Any, default: Any, *names: str, **how: Any) -> tuple[Any, Any]:
    return Annotated[kind, typer.Option(*names, rich_help_panel=panel, **how)], default


_RULES: Final = _Options(
    footer=_option(
        _COLUMNS,
        str | None,
        None,
        metavar="KEYRING",
        help="Of the footers and of every column that is named nowhere; parquet unless said otherwise.",
    ),
    column=_option(
        _COLUMNS,
        list[str] | None,
        None,
        metavar="KEYRING=COLUMN",
        help="A column, or a pattern with * and ?, and its keyring; again for more.",
    ),
    plain=_option(
        _COLUMNS, list[str] | None, None, metavar="COLUMN", help="A column that is not encrypted; again for more."
    ),
    plaintext_footer=_option(
        _COLUMNS, bool, False, "--plaintext-footer", help="Let everybody read the schema; it is signed."
    ),
    keys_beside=_option(
        _COLUMNS,
        bool,
        False,
        "--keys-beside",
        help="Keep each file's wrapped keys in a small file beside it, rotated without touching the data.",
    ),
)
_ENGINE: Final = _Options(
    engine=_option(_WHO, EngineName, EngineName.INLINE, help="This process, several, or a Dask cluster."),
    workers=_option(_WHO, int | None, None, min=1, help="Processes; one for each processor."),
    scheduler=_option(
        _WHO, str | None, None, metavar="ADDRESS", help="Of Dask: tls://host:port; tcp:// on this machine."
    ),
    tls_ca=_option(_WHO, str | None, None, metavar="FILE", help="The authority that both sides trust."),
    tls_cert=_option(_WHO, str | None, None, metavar="FILE", help="This side's certificate."),
    tls_key=_option(_WHO, str | None, None, metavar="FILE", help="Its private key."),
)


def register(app: typer.Typer) -> None:
    """Add the group."""
    noun = group(app, "bulk", "Parquet datasets: plan, encrypt, re-encrypt, rotate, verify.")
    for function in (encrypt, reencrypt, rotate, verify, plan):
        command(noun, function.__name__)(_with_options(function))


def _with_options(function: Callable[..., Outcome]) -> Callable[..., Outcome]:
    """Return a command whose ``rules`` and ``engine`` are made of the options that say what they are."""
    # What is not a command's own is not loaded to tell what its options are.
    later = {"KeyRules": Any, "BulkEngine": Any}
    own = list(inspect.signature(function, locals=later, eval_str=True).parameters.values())
    shared: dict[str, tuple[_Options, Callable[..., Any]]] = {"rules": (_RULES, _rules), "engine": (_ENGINE, _engine)}
    made = {name: shared[name] for name in shared if name in {each.name for each in own}}

    @wraps(function)
    def run(call: Call, **given: Any) -> Outcome:
        for name, (options, make) in made.items():
            given[name] = make(**{option: given.pop(option) for option in options})
        return function(call, **given)

    more = [parameter for options, _ in made.values() for parameter in options.parameters()]
    kept = [each for each in own if each.name not in made]
    run.__signature__ = inspect.Signature([*kept, *more])  # type: ignore[attr-defined]
    return run


def encrypt(
    call: Call,
    source: Source,
    target: Annotated[str, typer.Argument(metavar="TARGET", help="A folder: new, empty, or of an earlier run.")],
    *,
    rules: KeyRules | None,
    engine: BulkEngine,
) -> Outcome:
    """Encrypt a dataset of plain Parquet files into another folder.

    The plain one stays. After a crash the same command goes on where it stopped; files that were changed or added
    since are done, and where nothing is to be done it does nothing. Exits with 1 when files had to be left.
    """
    with _begun(call, engine, "encrypting") as (km, given):
        return _told(_bulk().encrypt(km, source, target, rules or _bulk().KeyRules(), **given))


def reencrypt(
    call: Call,
    source: Dataset,
    target: Annotated[
        str | None, typer.Argument(metavar="[TARGET]", help="Another folder; the dataset itself without one.")
    ] = None,
    *,
    again: Annotated[bool, typer.Option("--again", help="Every file, also those that are done.")] = False,
    rules: KeyRules | None,
    engine: BulkEngine,
) -> Outcome:
    """Write an encrypted dataset anew under new data keys, in its place or in another folder.

    In its place every file stays whole and readable all the time. The rules are those of its manifest unless some are
    given. What is done already under the same rules and active versions is left. Exits with 1 when files were left.
    """
    with _begun(call, engine, "re-encrypting") as (km, given):
        return _told(_bulk().reencrypt(km, source, target, rules, again=again, **given))


def rotate(
    call: Call,
    dataset: Dataset,
    *,
    rewrap_only: Annotated[
        bool, typer.Option("--rewrap-only", help="Refuse it where a file would have to be written anew.")
    ] = False,
    rules: KeyRules | None,
    engine: BulkEngine,
) -> Outcome:
    """Bring the keys of every file under the active versions of their keyrings.

    Keys beside a file are wrapped anew, and the data stays as it is. A file with its keys in itself is written anew,
    which costs what re-encrypting it costs; `bulk plan rotate` tells. Exits with 1 when files were left.
    """
    with _begun(call, engine, "rotating") as (km, given):
        return _told(_bulk().rotate_master_keys(km, dataset, rules, rewrap_only=rewrap_only, **given))


def verify(call: Call, dataset: Dataset, *, rules: KeyRules | None, engine: BulkEngine) -> Outcome:
    """Decrypt everything, compare it with the manifest, and write nothing.

    With options that say which columns are under which keyring, the manifest must name the same. Exits with 3 when a
    file is not as it was written.
    """
    with _begun(call, engine, "verifying") as (km, given):
        return _told(_bulk().verify(km, dataset, rules, **given), failed=NOT_VERIFIED)


def plan(
    call: Call,
    operation: Annotated[
        PlannedName, typer.Argument(metavar="OPERATION", help="encrypt, reencrypt, rotate or verify.")
    ],
    source: Source,
    *,
    rules: KeyRules | None,
    engine: BulkEngine,
) -> Outcome:
    """Count files, rows and bytes, do a small sample, and estimate the time; write nothing."""
    bulk = _bulk()
    if isinstance(engine, bulk.Dask):
        wrong_usage("what a cluster takes is not known here; plan with --engine processes --workers its threads")
    with call.blocking() as km:
        found = bulk.plan(km, bulk.Operation(operation.value), source, rules, engine=engine)
    return Outcome(found, _plan_text(found))


def _engine(
    *,
    engine: EngineName,
    workers: int | None,
    scheduler: str | None,
    tls_ca: str | None,
    tls_cert: str | None,
    tls_key: str | None,
) -> BulkEngine:
    """Return the engine of the options, or end the command."""
    bulk = _bulk()
    if scheduler is not None and engine is not EngineName.DASK:
        wrong_usage("--scheduler goes with --engine dask")
    if workers is not None and engine is not EngineName.PROCESSES:
        wrong_usage("--workers goes with --engine processes; a cluster has the workers that it has")
    if engine is not EngineName.DASK:
        made: BulkEngine = bulk.Inline() if engine is EngineName.INLINE else bulk.ProcessPool(workers)
        return made
    if scheduler is None:
        wrong_usage("--engine dask needs --scheduler")
    given = (tls_ca, tls_cert, tls_key)
    if any(given) and not all(given):
        wrong_usage("--tls-ca, --tls-cert and --tls-key go together")
    cluster: BulkEngine = bulk.Dask(scheduler, certificates=bulk.Certificates(*given) if all(given) else None)
    return cluster


@contextmanager
def _begun(call: Call, engine: BulkEngine, what: str) -> Iterator[tuple[blocking.KeyManager, dict[str, Any]]]:
    """Open the manager, and have workers on this machine find the same store."""
    given: dict[str, Any] = {"engine": engine}
    if call.config is not None:
        given["settings"] = Path(call.config).absolute()
    for key, value in call.flags.items():
        if value is not None:
            os.environ[f"KEYSTEAD_{key.upper()}"] = value
    with call.blocking() as km, byte_bar(what) as tick:
        if tick is not None:
            given["on_progress"] = lambda progress: tick(progress.bytes_done, progress.bytes)
        yield km, given


def _bulk() -> Any:
    with needing("bulk", "Parquet datasets need pyarrow"):
        from keystead import bulk
    return bulk


def _rules(
    *, footer: str | None, column: list[str] | None, plain: list[str] | None, plaintext_footer: bool, keys_beside: bool
) -> KeyRules | None:
    """Return the rules of the options, None where none was given."""
    if not (footer or column or plain or plaintext_footer or keys_beside):
        return None
    named: dict[str, list[str]] = {}
    for each in column or ():
        ring, equals, name = each.partition("=")
        if not (ring and equals and name):
            _wrong_column(each)
        named.setdefault(ring, []).append(name)
    rules: KeyRules = _bulk().KeyRules(
        footer=footer or "parquet",
        columns=named,
        plain=plain or (),
        plaintext_footer=plaintext_footer,
        in_file=not keys_beside,
    )
    return rules


def _wrong_column(given: str) -> NoReturn:
    wrong_usage(f"--column reads KEYRING=COLUMN, as pii=email, not {given!r}")


def _told(report: BulkReport, *, failed: int = FAILED) -> Outcome:
    for each in report.failures[:_TOLD]:
        say(printable(f"{each.name}: {each.reason}"))
    if len(report.failures) > _TOLD:
        say(f"and {len(report.failures) - _TOLD} more; --json names all of them")
    lines: list[tuple[str, object]] = [
        ("files", report.files),
        ("done", report.done),
        ("nothing to do", report.unchanged),
        ("failed", len(report.failures)),
        ("rows", report.rows),
        ("read", _size(report.bytes_read)),
        ("written", _size(report.bytes_written)),
        ("seconds", f"{report.seconds:.1f}"),
        ("dataset", report.dataset or "without a manifest: only that everything decrypts is known"),
    ]
    return Outcome(report, pairs(lines), 0 if report.is_complete else failed)


def _plan_text(found: BulkPlan) -> str:
    lines: list[tuple[str, object]] = [
        ("files", found.files),
        ("rows", found.rows),
        ("size", _size(found.bytes)),
        ("largest file", _size(found.largest_bytes)),
        ("keys beside their file", found.keys_beside),
        ("estimate", f"{timedelta(seconds=round(found.seconds))} for {found.workers} at once on this machine"),
        ("by a sample of", f"{found.sample_rows} rows"),
    ]
    return pairs(lines)


def _size(size: int) -> str:
    return f"{size / 1e6:.1f} MB" if size < 10**9 else f"{size / 1e9:.2f} GB"
