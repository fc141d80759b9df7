"""What the doctor finds about the log of erasures of a store that has subjects. Nothing is written."""

from __future__ import annotations

import asyncio
from typing import Final

from keystead.erasure.lines import head_of
from keystead.errors import KMSError
from keystead.manager.findings import Notes
from keystead.model.counts import counted
from keystead.ports import ErasureLog, ErasureMark, LogPosition

CHECK: Final = "erasures"


async def look_at_erasures(
    notes: Notes, log: ErasureLog | None, mark: ErasureMark | None, seen: ErasureMark | None
) -> None:
    """Compare the log with how far the store has followed it, and with how far it is known to have come.

    Args:
        mark: the store's; None where it has no subjects, and nothing is noted.
        seen: what the state journal knows.
    """
    if mark is None:
        return
    if log is None:
        notes.fail(
            CHECK,
            "the store has subjects, and no log of their erasures is set: their keys are not used here",
            "set erasures to the log that the other processes of the store use",
        )
        return
    try:
        lines, _ = await asyncio.to_thread(log.read, LogPosition())
    except KMSError as exc:
        notes.error(CHECK, exc)
        return
    for known in (mark, seen):
        if known is not None and not _has(lines, known):
            notes.fail(
                CHECK,
                f"the log has {counted(len(lines), 'line')}, and not the {known.count} that it had: no subject's key "
                "is used",
                "put back the log that this store was used with",
            )
            return
    more = len(lines) - mark.count
    if more:
        told = f"{counted(more, 'erasure')} of the log {'is' if more == 1 else 'are'} not done in the store"
        notes.warn(CHECK, told, "start a process that uses the store and the log: it does what is missing")
    else:
        notes.ok(CHECK, f"{counted(len(lines) - 1, 'erasure')}, all of them done in the store")


def _has(lines: list[bytes], known: ErasureMark) -> bool:
    return known.count <= len(lines) and head_of(lines[known.count - 1]) == known.head
