"""The examination of a store's audit trail, from its rows alone. Nothing is verified, and nothing written."""

from __future__ import annotations

from typing import Final

from keystead.manager.audit_status import AuditStatus, covered_text, rejected_text, waiting_text
from keystead.manager.findings import Finding, Notes
from keystead.model.counts import counted

ABOUT: Final = "audit trail"
LATE_S: Final = 60.0
"""Where a process seals, an entry waits for seconds."""
_VERIFY: Final = "`keystead audit verify`, with a checkpoint that was kept (--since-checkpoint), tells what that means"
_KEEP: Final = (
    "set audit.checkpoint_file or a witness, or run `keystead audit checkpoint FILE` by cron; the file belongs where "
    "who owns the database cannot write"
)
_HELD_UP: Final = (
    "look at the log of {whom}: a KMS or a database that does not answer keeps the trail from being sealed"
)


def trail_findings(status: AuditStatus, nodes: int) -> list[Finding]:
    """Return what is found of a trail, in a store that ``nodes`` running processes use."""
    notes = Notes(ABOUT)
    if status.stream is None and not status.is_on:
        notes.ok("kept", "there is none; `keystead audit begin` begins one")
        return notes.findings
    if status.stream is None:
        notes.fail("kept", "it is kept, and where it stands cannot be read", _VERIFY)
    elif not status.is_on:
        notes.ok("kept", f"{status.stream}, ended")
    elif not status.is_marked:
        told = f"{status.stream}; the store does not say that it keeps a trail, which was not ended"
        notes.warn("kept", told, f"the next use of the store marks it again; {_VERIFY}")
    else:
        notes.ok("kept", status.stream)
    notes.ok("sealed", counted(status.records, "record"))
    _look_at_waiting(notes, status, nodes)
    _look_at_checkpoints(notes, status)
    if status.rejected:
        notes.warn("rejected", rejected_text(status), "`keystead audit verify` names each")
    else:
        notes.ok("rejected", "no entry")
    if status.found is not None:
        notes.warn("found", f"{status.found}, in record {status.found_in}", _VERIFY)
    return notes.findings


def _look_at_waiting(notes: Notes, status: AuditStatus, nodes: int) -> None:
    """Tell what waits to be sealed, and who seals."""
    sealer = f"process {status.sealed_by}" if status.is_sealing else None
    waiting = waiting_text(status)
    if not status.waiting or (status.oldest_waiting_s or 0.0) < LATE_S:
        notes.ok("waiting", waiting)
        notes.ok("sequencer", sealer or "none now: the next use of the store seals")
        return
    notes.warn("waiting", waiting, "`keystead audit checkpoint FILE` seals them, or says what is in the way")
    if sealer is not None:
        notes.warn("sequencer", f"{sealer} has it in hand, and does not seal", _HELD_UP.format(whom="that process"))
    elif nodes:
        told = f"none of {counted(nodes, 'running process', 'running processes')} seals"
        notes.warn("sequencer", told, _HELD_UP.format(whom="each"))
    else:
        notes.warn("sequencer", "none: no process is running", "start one, or run `keystead maintain` by cron")


def _look_at_checkpoints(notes: Notes, status: AuditStatus) -> None:
    """Tell of the last checkpoint, and of the last one that left the database."""
    if status.checkpoint_age_s is None:
        notes.warn("checkpoint", "none is signed yet", "`keystead audit checkpoint FILE` has one signed")
    else:
        notes.ok("checkpoint", f"one {covered_text(status.checkpoint_records, status.checkpoint_age_s)}")
    if status.exported_age_s is None:
        told = "no checkpoint has left the database: an end that is cut off would not be missed"
        notes.warn("exported", told, _KEEP)
    else:
        notes.ok("exported", f"one {covered_text(status.exported_records, status.exported_age_s)}")
