"""``keystead audit``: the audit trail of the store."""

from __future__ import annotations

from typing import Annotated

import typer

from keystead.cli.audit.acknowledge import acknowledge
from keystead.cli.audit.files import archive, checkpoint, export, policy
from keystead.cli.audit.listing import list_entries
from keystead.cli.audit.prove import prove, show
from keystead.cli.audit.verify import verify
from keystead.cli.frame import Call, command, group, wrong_usage
from keystead.cli.log.prove import verify_proof
from keystead.cli.render import Outcome, pairs, printable
from keystead.manager.audit_status import AuditStatus, covered_text, rejected_text, seen_status, waiting_text
from keystead.manager.manager import KeyManager
from keystead.model.counts import counted


def register(app: typer.Typer) -> None:
    """Add the group."""
    noun = group(app, "audit", "The audit trail: begin, list, prove, verify, archive.")
    command(noun, "begin")(begin)
    command(noun, "status")(status)
    command(noun, "list")(list_entries)
    command(noun, "show")(show)
    command(noun, "prove")(prove)
    command(noun, "verify-proof")(verify_proof)
    command(noun, "verify")(verify)
    command(noun, "acknowledge")(acknowledge)
    command(noun, "checkpoint")(checkpoint)
    command(noun, "policy")(policy)
    command(noun, "export")(export)
    command(noun, "archive")(archive)
    command(noun, "end")(end)


def begin(call: Call) -> Outcome:
    """Begin an audit trail. From now on every process that uses this store writes into it; older releases refuse."""

    async def run(km: KeyManager) -> tuple[AuditStatus, AuditStatus]:
        before = await km.audit.status()
        await km.audit.begin()
        await km.audit.checkpoint()
        return before, await km.audit.status()

    before, found = call.run(run)
    if before.is_on and before.stream == found.stream:
        return Outcome(found, f"this store keeps the audit trail {found.stream} already")
    told = f"the audit trail {found.stream} has begun; keep elsewhere what `keystead audit checkpoint FILE` and "
    return Outcome(found, f"{told}`keystead audit policy FILE` write")


def status(call: Call) -> Outcome:
    """Tell how the trail stands: what waits to be sealed, and the last checkpoint.

    Nothing is verified for it, and no entry added; the KMS is not asked.
    """
    found = call.run(seen_status, is_opened=False)
    if found.stream is None:
        told = "there is none; `keystead audit begin` begins one"
        if found.is_on:
            told = "it is kept, and where it stands cannot be read: `keystead audit verify` tells what is there"
        return Outcome(found, f"this store's audit trail: {told}")
    lines: list[tuple[str, object]] = [
        ("trail", found.stream if found.is_on else f"{found.stream}, ended"),
        ("sealed", counted(found.records, "record")),
        ("waiting", waiting_text(found)),
        ("sealed by", _sealer(found)),
        ("checkpoint", _covered(found.checkpoint_records, found.checkpoint_age_s)),
        ("exported", _covered(found.exported_records, found.exported_age_s)),
    ]
    if found.is_on and not found.is_marked:
        lines.append(
            ("UNMARKED", "the store does not say that it keeps a trail, which was not ended; the next use marks it")
        )
    if found.rejected:
        lines.append(("REJECTED", f"{rejected_text(found)}: `keystead audit verify` names each"))
    if found.found is not None:
        lines.append(
            ("FOUND", f"{found.found} (record {found.found_in}): `keystead audit verify` tells what that means")
        )
    return Outcome(found, printable(pairs(lines)))


def end(
    call: Call,
    reason: Annotated[str, typer.Option("--reason", metavar="TEXT", help="The last thing that is written.")],
) -> Outcome:
    """End the trail: processes that start from now on take no part, unless they are told to."""
    if not reason.strip():
        wrong_usage("--reason says why the audit trail ends")
    call.run(lambda km: km.audit.end(reason))
    return Outcome({"ended": True}, "the audit trail has ended; what changes from now on is not in it")


def _sealer(found: AuditStatus) -> str:
    return f"process {found.sealed_by}" if found.is_sealing else "nobody now: the next use of the store seals"


def _covered(records: int, age_s: float | None) -> str:
    return "none yet" if age_s is None else covered_text(records, age_s)
