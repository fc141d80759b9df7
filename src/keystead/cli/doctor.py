"""``keystead doctor``: what is wrong, and what helps."""

from __future__ import annotations

import asyncio
import os
from typing import Annotated

import typer

from keystead.cli.frame import FAILED, Call, command, duration_option
from keystead.cli.render import Outcome, printable, table
from keystead.manager import doctor as examination
from keystead.manager.findings import DoctorReport
from keystead.runtime.clock import SystemClock


def register(app: typer.Typer) -> None:
    """Add the command."""
    command(app, "doctor")(doctor)


def doctor(
    call: Call,
    uri: Annotated[
        str | None,
        typer.Argument(metavar="URI", help="Only this one; it needs no settings. Else all that is set."),
    ] = None,
    timeout: Annotated[
        str, typer.Option("--timeout", metavar="15s", help="How long one provider, or the store, is examined.")
    ] = "15s",
) -> Outcome:
    """Examine providers and store, and name the cure of each fault. Exit code 1 if something is unwell.

    Each provider encrypts and decrypts a random value under its key; nothing is rotated, and the store is only read.
    """
    deadline_s = duration_option("--timeout", timeout).total_seconds()

    async def run() -> DoctorReport:
        clock = SystemClock()
        if uri is not None:
            return await examination.examine_uri(uri, clock=clock, random=os.urandom, deadline_s=deadline_s)
        return await examination.examine_settings(
            call.settings(), clock=clock, random=os.urandom, deadline_s=deadline_s
        )

    report = asyncio.run(run())
    rows = [
        (each.about, each.check, each.status.value, printable(each.detail) + (f"\n-> {each.cure}" if each.cure else ""))
        for each in report.findings
    ]
    data = {"is_well": report.is_well, "findings": report.findings}
    return Outcome(data, table("about", "check", "status", "found", rows=rows), 0 if report.is_well else FAILED)
