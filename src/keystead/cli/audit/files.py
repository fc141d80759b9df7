"""What leaves the database: ``keystead audit checkpoint``, ``policy``, ``export`` and ``archive``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from keystead.cli.audit.verify import SinceCheckpoint, read_kept
from keystead.cli.frame import Call, duration_option, moment_option, wrong_usage
from keystead.cli.render import Outcome
from keystead.cli.targets import require_replaceable
from keystead.ledger.audit.exporting import keep_in_file
from keystead.ledger.tlog.checkpoint import Checkpoint
from keystead.ledger.tlog.note import Note
from keystead.manager.audit import WAIT_S
from keystead.manager.manager import KeyManager
from keystead.model.counts import counted

Within = Annotated[
    str | None, typer.Option("--within", metavar="TIME", help="How long to wait until all is sealed; 30s if left out.")
]


def checkpoint(
    call: Call,
    file: Annotated[
        str | None, typer.Argument(metavar="FILE", help="Where to; stdout if none is named.", show_default=False)
    ] = None,
    *,
    within: Within = None,
) -> Outcome:
    """Have everything sealed and signed, and write the checkpoint. Keep it where nobody can change it.

    A file whose checkpoint the trail does not continue is left as it is, and the command fails: the trail was put back
    to an earlier state, or is another one.
    """

    async def run(km: KeyManager) -> bytes:
        note = await km.audit.checkpoint(timeout_s=_wait_s(within))
        if file is not None:
            await keep_in_file((await km.session()).surroundings.store, Path(file), note)
        return note

    note = call.run(run)
    made = Checkpoint.parse(Note.parse(note).text)
    data = {"stream": made.origin, "records": made.size, "root": made.root.hex(), "checkpoint": note.decode()}
    if file is None:
        return Outcome(data, note.decode().rstrip("\n"))
    return Outcome(
        {**data, "output": file}, f"wrote the checkpoint over {counted(made.size, 'record')} of {made.origin} to {file}"
    )


def policy(
    call: Call,
    file: Annotated[str, typer.Argument(metavar="FILE", help="Where to.")],
) -> Outcome:
    """Write the trust policy of whoever verifies the trail, as its own entries say it. Keep it elsewhere."""
    require_replaceable(Path(file))
    found = call.run(lambda km: km.audit.trust_policy())
    found.save(file)
    data = {"output": file, "stream": found.stream, "keys": len(found.keys), "signers": len(found.signers)}
    told = f"wrote what a reader of {found.stream} has to trust to {file}; keep it where whoever writes the database "
    return Outcome(data, f"{told}cannot change it")


def export(call: Call, folder: Annotated[str, typer.Argument(metavar="FOLDER", help="Where to.")]) -> Outcome:
    """Copy the trail, as far as it is sealed, into files that `keystead log verify` reads."""
    files = call.run(lambda km: km.audit.export(folder))
    return Outcome({"files": files}, "\n".join(map(str, files)))


def archive(
    call: Call,
    folder: Annotated[str, typer.Argument(metavar="FOLDER", help="Where to.")],
    before: Annotated[
        str, typer.Option("--before", metavar="WHEN", help="What ended before then: 2030-01-31, or 90d for days ago.")
    ],
    *,
    compress: Annotated[bool, typer.Option("--compress/--no-compress", help="By gzip.")] = True,
    since_checkpoint: SinceCheckpoint = None,
    within: Within = None,
) -> Outcome:
    """Move the files of the trail that ended before a time out of the database, verified, and leave a word of it.

    `keystead audit verify --archive FOLDER` reads both. What was found and cannot be mended has to be acknowledged
    before. Exit codes: 3 the trail is not as it was written, and nothing was moved; 4 whether it is could not be found
    out.
    """
    when = moment_option("--before", before)
    if when is None:
        wrong_usage("--before names a time")
    kept = read_kept(since_checkpoint)

    async def run(km: KeyManager) -> Outcome:
        taken = await km.audit.archive(folder, before=when, compress=compress, since=kept, timeout_s=_wait_s(within))
        told = (
            f"moved {counted(taken.records, 'record')} to {folder}"
            if taken.files
            else "nothing ended before then, and more than eight days ago"
        )
        return Outcome({"files": taken.files, "records": taken.records}, told)

    return call.run(run)


def _wait_s(within: str | None) -> float:
    given = duration_option("--within", within)
    return WAIT_S if given is None else float(given.total_seconds())
