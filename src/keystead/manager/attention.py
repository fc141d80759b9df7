"""What needs somebody's attention in a store and in this process, the most urgent first."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Final

from keystead.config.durations import age_text
from keystead.lifecycle.kek_watch import KekWatch
from keystead.lifecycle.surroundings import ROTATION_FRACTION
from keystead.manager.audit_status import AuditStatus, seen_status
from keystead.manager.consent import RULE
from keystead.manager.manager import KeyManager
from keystead.model import KeyRecord, KeyringPurpose, is_of_transit, utc_text
from keystead.model.counts import counted
from keystead.ports import AilingReencryption

MOST: Final = 20
"""How many keys of one kind are named."""
LATE_S: Final = 600.0
"""How long entries of the audit trail may wait to be sealed before somebody should look."""
UNCHECKED_S: Final = 86_400.0
LOOKED_AT: Final = 2000
"""How many active keys, those first that are due first, are looked at for what they have seen."""
JOBS_LOOKED_AT: Final = 100
"""How many re-encryption jobs, the newest, are looked at."""


class Attention(StrEnum):
    """How soon."""

    URGENT = "urgent"
    SOON = "soon"


@dataclass(frozen=True, slots=True)
class Matter:
    """Something that needs attention.

    Attributes:
        about: a keyring's name, ``store``, ``audit trail``, ``provider NAME`` or ``re-encryption of FIELD``.
        cure: what to do.
        keyring: the name where it is about a keyring; None where not.
    """

    attention: Attention
    about: str
    told: str
    cure: str
    keyring: str | None = None


async def attention(km: KeyManager, trail: AuditStatus | None = None) -> list[Matter]:
    """Return what needs attention in a manager's store.

    Args:
        trail: how its audit trail stands, where that was asked already.
    """
    session = await km.session()
    s = session.surroundings
    now, policy = s.clock.now(), s.policy
    most = [None if each is None else each * ROTATION_FRACTION for each in (policy.max_messages, policy.max_bytes)]
    async with s.store.reading() as work:
        is_restored = (await work.state()).restored
        due = await work.due_keys(now, limit=MOST)
        leaving = await work.leaving_keys(limit=MOST)
        used = await work.used_keys(*most, among=LOOKED_AT, limit=MOST)
        waiting = await work.count_waiting(utc_text(now), limit=MOST)
        has_rule = await work.has_rule(RULE)
        ailing = await work.ailing_reencryptions(among=JOBS_LOOKED_AT)
    found = [_restored()] if is_restored else []
    found += [_due(row, now) for row in due]
    shares = [(session.lifecycle.maintenance.uses_ratio(row) or 0.0, row) for row in used]
    found += [_used(row, share) for share, row in sorted(shares, key=lambda each: each[0], reverse=True)]
    found += [_leaving(row) for row in leaving]
    found += _asked(waiting)
    found += [_told_by_store()] if has_rule and not session.consent.is_wanted else []
    found += [matter for each in ailing for matter in _of_job(each)]
    found += _of_kek(session.kek_watch, s.kek.provider)
    found += _of_trail(trail or await seen_status(km))
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
        told = f"version {row.version} is past its end, {_second(row.expires_at)}, and encrypts no more"
        return _of_key(Attention.URGENT, row, told, _replacing(row))
    told = f"version {row.version} has been due for rotation since {_second(row.rotate_after or now)}"
    return _of_key(Attention.SOON, row, told, f"keystead maintain, or {_replacing(row)}")


def _used(row: KeyRecord, share: float) -> Matter:
    told = f"version {row.version} has seen {share:.0%} of the messages or bytes that the policy lets it"
    return _of_key(Attention.URGENT if share >= 1 else Attention.SOON, row, told, _replacing(row))


def _replacing(row: KeyRecord) -> str:
    """Return the command that gives a keyring a new version."""
    if is_of_transit(row.keyring):
        return "keystead transit rotate, with the name that `keystead transit list` shows"
    if row.purpose is KeyringPurpose.WRAP:
        return "keystead key rewrap"
    verb = "rotate-index" if row.purpose is KeyringPurpose.INDEX else "rotate"
    return f"keystead key {verb} {row.keyring}"


def _asked(waiting: int) -> list[Matter]:
    if not waiting:
        return []
    told = f"{counted(waiting, 'act')} that somebody asked for waits for a second person's approval"
    return [Matter(Attention.SOON, "approvals", told, "keystead approval list")]


def _told_by_store() -> Matter:
    told = "that two people are asked for stands in the store alone: whoever writes its database could take that out"
    return Matter(Attention.SOON, "approvals", told, "two_person: true in the settings of this process")


def _of_job(ailing: AilingReencryption) -> list[Matter]:
    about, job, found = f"re-encryption of {ailing.job.field_id}", ailing.job.id, []
    if ailing.abandoned:
        parts = counted(ailing.abandoned, "part")
        told = f"whoever worked on {parts} of job {job} has not been heard of: nobody goes on with it by itself"
        cure = "run the same keystead reencrypt again: it goes on where it stopped"
        found.append(Matter(Attention.SOON, about, told, cure))
    if ailing.failed:
        rows = counted(ailing.failed, "row as it was", "rows as they were")
        told = f"job {job} left {rows}, because they could not be read or written"
        cure = "run the same keystead reencrypt again: it tells which they are, and why"
        found.append(Matter(Attention.SOON, about, told, cure))
    return found


def _of_kek(watch: KekWatch, provider: str) -> list[Matter]:
    """Return what the KMS's last answer to this process means."""
    about, cure = f"provider {provider}", "keystead doctor tells what is wrong with it, and what helps"
    if watch.ended is not None:
        told = f"it refuses to unwrap the WRAP key ({watch.ended.code}): this process encrypts and decrypts nothing"
        return [Matter(Attention.URGENT, about, told, cure)]
    if watch.silent_s is None:
        return []
    since = age_text(watch.silent_s)
    if watch.refusal() is not None:
        told = f"it has not answered for {since}: this process encrypts and decrypts nothing until it does"
    else:
        told = f"it has not answered for {since}; keys that are loaded go on until the time of grace is over"
    return [Matter(Attention.URGENT, about, told, cure)]


def _leaving(row: KeyRecord) -> Matter:
    told = f"version {row.version} will be destroyed" + (
        "" if row.destroy_after is None else f" at {_second(row.destroy_after)}"
    )
    return _of_key(Attention.SOON, row, told, f"keystead key cancel-destroy {row.keyring}/{row.version}")


def _of_key(attention: Attention, row: KeyRecord, told: str, cure: str) -> Matter:
    return Matter(attention, row.keyring, told, cure, row.keyring)


def _second(at: datetime) -> str:
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


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
