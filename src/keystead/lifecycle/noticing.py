"""Noticing that a store was put back to an earlier time: its epoch is lower than one that was seen."""

from __future__ import annotations

import logging
from dataclasses import replace

from keystead.lifecycle.surroundings import Surroundings
from keystead.model import StoreState
from keystead.ports import AuditEvent

log = logging.getLogger("keystead.lifecycle")


async def mark_restored(s: Surroundings, known: int) -> tuple[StoreState, bool]:
    """Mark the store as restored, so that nobody encrypts until it is recovered.

    What was read before may be over: whoever marked it, recovered it or went on meanwhile is not overruled.

    Args:
        known: the epoch that was seen.

    Returns:
        The state of the store now, and whether it was marked by this call.
    """
    async with s.store.transaction() as work:
        state = await work.state(lock=True)
        if state.restored or state.epoch >= known:
            return state, False
        log.error("the store went back to an earlier epoch: it was restored and encrypts no more until recovered")
        await s.audit.record(work, AuditEvent("store.restored"))
        await work.set_restored(True)
        return replace(await work.state(), restored=True), True


__all__ = ["mark_restored"]
