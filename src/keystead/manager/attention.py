"""What needs somebody's attention in a store, the most urgent first."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Final

from keystead.manager.audit_status import AuditStatus, seen_status
from keystead.manager.manager import KeyManager
from keystead.model import DataKeyState, KeyRecord, utc_text

MOST: Final = 20
"""How many keys of one kind are named."""
LATE_S: Final = 600.0
"""How long entries of the audit trail may wait to be sealed before somebody should look."""
UNCHECKED_S: Final = 86_400.0


class Attention(StrEnum):
    """How soon."""

    URGENT = "urgent"
    SOON = "soon"


@dataclass(frozen=True, slots=True)
class Matter:
    """Something that needs attention.

    Attributes:
        about: a keyring's name, ``store`` or ``audit trail``.
        cure: what to do.
    """

    attention: Attention
    about: str
    told: str
    cure: str


async def attention(km: KeyManager) -> list[Matter]:
    """Return what needs attention in a manager's store."""
    s = (await km.session()).surroundings
    now = s.clock.now()
    async with s.store.reading() as work:
        is_restored = (await work.state()).restored
        due = await work.keys(states={DataKeyState.ACTIVE}, due_before=now, limit=MOST)
        leaving = await work.keys(states={DataKeyState.PENDING_DESTROY}, limit=MOST)
    found = [_restored()] if is_restored else []
    found += [_due(row, now) for row in due]
    found += [_leaving(row) for row in leaving]
    found += _of_trail(await seen_status(km))
    return sorted(found, key=lambda each: each.attention is not Attention.URGENT)


def _restored() -> Matter:
    return Matter(
        Attention.URGENT,
        "store",
        "it was put back from a backup, and takes nothing new until it is recovered",
        "keystead store recover",
    )


def _due(row: KeyRecord, now: datetime) -> Matter:
    if row.expires_at is not None and row.expires_at <= now:
        told = f"version {row.version} is past its end, {utc_text(row.expires_at)}, and encrypts no more"
        return Matter(Attention.URGENT, row.keyring, told, f"keystead key rotate {row.keyring}")
    told = f"version {row.version} has been due for rotation since {utc_text(row.rotate_after or now)}"
    return Matter(Attention.SOON, row.keyring, told, f"keystead maintain, or keystead key rotate {row.keyring}")


def _leaving(row: KeyRecord) -> Matter:
    told = f"version {row.version} will be destroyed" + (
        "" if row.destroy_after is None else f" at {utc_text(row.destroy_after)}"
    )
    return Matter(Attention.SOON, row.keyring, told, f"keystead key cancel-destroy {row.keyring}/{row.version}")


def _of_trail(status: AuditStatus) -> list[Matter]:
    if not status.is_on:
        return []
    found = []
    if status.rejected:
        told = f"{status.rejected} entry or entries were not authentic"
        found.append(Matter(Attention.URGENT, "audit trail", told, "keystead audit verify"))
    if status.found is not None:
        told = f"record {status.found_in} says {status.found}"
        found.append(Matter(Attention.URGENT, "audit trail", told, "keystead audit verify"))
    if (status.oldest_waiting_s or 0) > LATE_S:
        told = f"entries wait to be sealed for {status.oldest_waiting_s:.0f} s: no process seals them"
        found.append(
            Matter(Attention.URGENT, "audit trail", told, "start a node; keystead audit checkpoint seals what waits")
        )
    if status.records and (status.checkpoint_age_s is None or status.checkpoint_age_s > UNCHECKED_S):
        told = "no checkpoint for a day"
        found.append(Matter(Attention.SOON, "audit trail", told, "keystead audit checkpoint"))
    return found
