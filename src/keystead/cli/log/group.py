"""``keystead log``: sealed logs, written and checked from the command line."""

from __future__ import annotations

import typer

from keystead.cli.frame import command, group
from keystead.cli.log.prove import checkpoint, prove, verify_proof
from keystead.cli.log.seal import seal
from keystead.cli.log.show import inspect, tail
from keystead.cli.log.verify import verify
from keystead.cli.log.witness import witness


def register(app: typer.Typer) -> None:
    """Add the group."""
    noun = group(app, "log", "Sealed logs: write, verify, prove, witness.")
    command(noun, "seal")(seal)
    command(noun, "verify")(verify)
    command(noun, "checkpoint")(checkpoint)
    command(noun, "prove")(prove)
    command(noun, "verify-proof")(verify_proof)
    command(noun, "witness")(witness)
    command(noun, "inspect")(inspect)
    command(noun, "tail")(tail)
