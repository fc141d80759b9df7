"""``keystead job``: what runs from time to time in the processes that use the store."""

from __future__ import annotations

import typer

from keystead.cli.frame import Call, command, group
from keystead.cli.render import Outcome, moment, printable, table
from keystead.manager.job_runs import job_runs


def register(app: typer.Typer) -> None:
    """Add the group."""
    command(group(app, "job", "Jobs that run from time to time: list."), "list")(list_jobs)


def list_jobs(call: Call) -> Outcome:
    """List how each job ended last, and on which process.

    They run in processes that stay; `keystead maintain` does everything that is due at once. The KMS is not asked.
    """
    found = call.run(job_runs, is_opened=False)
    data = [
        {
            "name": each.name,
            "outcome": "done" if each.error_code is None else "failed",
            "error_code": each.error_code,
            "node": each.node,
            "ended_at": each.ended_at,
            "seconds": each.duration_ms / 1000,
        }
        for each in found
    ]
    rows = [
        (
            printable(each.name),
            "done" if each.error_code is None else f"failed: {printable(each.error_code)}",
            moment(each.ended_at),
            f"{each.duration_ms / 1000:.1f}",
            printable(each.node),
        )
        for each in found
    ]
    told = table("job", "last run", "ended", "seconds", "process", rows=rows) if rows else "no job has run yet"
    return Outcome({"jobs": data}, told)
