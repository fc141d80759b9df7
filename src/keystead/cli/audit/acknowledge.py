"""``keystead audit acknowledge``: what was found in the trail, and somebody has looked into."""

from __future__ import annotations

from typing import Annotated

import typer

from keystead.cli.frame import Call, wrong_usage
from keystead.cli.log.policy import finding_out
from keystead.cli.render import Outcome
from keystead.model.counts import counted


def acknowledge(
    call: Call,
    record: Annotated[
        int, typer.Argument(metavar="RECORD", min=0, help="The last record that `keystead audit verify` was read to.")
    ],
    *,
    reason: Annotated[str, typer.Option("--reason", metavar="TEXT", help="What was found out, for the trail.")],
) -> Outcome:
    """Say in the trail that somebody has looked into what was found in it, and cannot be mended.

    It is entries that were not authentic, states that were not as they had been left, and entries that are gone, as far
    as records up to RECORD tell of them. From then on they are warnings. Exit code 4: what there is could not be found
    out.
    """
    if not reason.strip():
        wrong_usage("--reason says what was found out")
    with finding_out():
        found = call.run(lambda km: km.audit.acknowledge(record, reason=reason))
    data = {"records": found.records, "missing": found.missing}
    if not found:
        return Outcome(data, f"up to record {record} there is nothing to acknowledge")
    told = [counted(len(found.records), "record"), counted(found.entries, "missing entry", "missing entries")]
    return Outcome(data, f"acknowledged {' and '.join(told)}")
