"""Re-encryption jobs as the store keeps them: finding the one to go on with, adding one, pausing and ending them."""

from __future__ import annotations

import asyncio
import contextlib
import json
import secrets
from collections.abc import Callable, Collection
from dataclasses import dataclass
from datetime import timedelta
from typing import Final, Protocol

from keystead.errors import ConflictError, KeyNotFoundError
from keystead.fields.cipher import FieldCipher
from keystead.fields.field import Field
from keystead.fields.progress import total_of
from keystead.fields.surroundings import Manager, Surroundings
from keystead.model import DataKeyState, utc_of
from keystead.model.patterns import covers, is_pattern
from keystead.ports import AuditEvent, Detail, FieldRecord, ReencryptionRecord, ReencryptionState, UnitOfWork

UNFINISHED: Final = frozenset({ReencryptionState.RUNNING, ReencryptionState.PAUSED})
_STARTING = "keystead.reencrypt"
_ACTIONS: Final = {
    ReencryptionState.RUNNING: "reencrypt.resume",
    ReencryptionState.PAUSED: "reencrypt.pause",
    ReencryptionState.CANCELLED: "reencrypt.cancel",
}
_SLACK = timedelta(minutes=5)
"""How far the clocks of nodes may be apart."""


class Aim(Protocol):
    """What a job brings rows to, and how."""

    def to_json(self) -> str:
        """Return the text by which aims are compared: one aim has one text."""


@dataclass(frozen=True, slots=True)
class Target:
    """What a job brings rows to, and how: a job with another one cannot be gone on with.

    The active data key (of a field with one keyring), the live index versions, the columns by which rows are read, and
    the declaration of the field. ``verify`` says that every index is computed: nobody knows yet that those that are
    there are of this index keyring.
    """

    active: int | None
    indexes: tuple[int, ...]
    verify: bool
    plaintext: str | None
    key: tuple[str, ...]
    field: Field
    importing: str | None = None

    def to_json(self) -> str:
        """Return the text the store keeps, and by which targets are compared: one target has one text."""
        active = None if self.active is None else str(self.active)
        body = {"active": active, "indexes": self.indexes, "verify": self.verify, "plaintext": self.plaintext}
        body |= {} if self.importing is None else {"importing": self.importing}
        return json.dumps({**body, "key": self.key, "field": _declared(self.field)}, separators=(",", ":"))


def _declared(field: Field) -> dict[str, object]:
    """Return what of a declaration says what becomes of a row."""
    kinds = (*field.record_types, field.tenant_type, field.subject_type)
    types = [None if kind is None else kind.__name__ for kind in kinds]
    return {
        "type": field.value_type.name,
        "record": field.record_columns,
        "tenant": field.tenant,
        "subject": [field.subject, field.subject_kind],
        "types": types,
        "keyring": field.keyring,
        "former_keyrings": field.former_keyrings,
        "indexes": [[index.name, index.size] for index in field.indexes],
        "index_keyring": field.index_keyring,
        "encrypt_null": field.encrypt_null,
    }


def target_of(
    cipher: FieldCipher,
    registered: FieldRecord,
    plaintext: str | None,
    key: tuple[str, ...],
    importing: str | None = None,
) -> Target:
    """Return what rows of a field are to be brought to now, read by the columns of ``key``."""
    field = cipher.field
    ring = None if is_pattern(field.keyring) else cipher.keyrings.find(field.keyring)
    active = None if ring is None else ring.snapshot.active
    versions = cipher.index_versions
    return Target(
        active, versions, bool(versions) and registered.indexed_version is None, plaintext, key, field, importing
    )


async def job_for(
    s: Surroundings, registered: FieldRecord, target: Aim, *, batch_rows: int, dry_run: bool, resume: bool
) -> tuple[ReencryptionRecord, bool]:
    """Return the unfinished job to go on with, or a new one, and whether it is new. Older ones are cancelled."""
    wanted = target.to_json()
    async with s.store.transaction() as work:
        # Not for the lease, but for its row: who starts a job waits here for whoever else is starting one.
        await work.claim_lease(_STARTING, "starting", 1)
        found = None
        for job in await work.reencryptions(registered.id):
            if job.state not in UNFINISHED or job.dry_run is not dry_run:
                continue
            is_same = job.locator == registered.locator and job.target == wanted
            if resume and is_same and not await _has_newer_keys(work, registered, job):
                found = job
            elif not dry_run:
                await s.audit.record(work, event_of("reencrypt.cancel", job))
                await work.change_reencryption(job.id, job.state, state=ReencryptionState.CANCELLED)
        if found is not None:
            await s.audit.record(work, event_of("reencrypt.resume", found))
            if found.state is ReencryptionState.PAUSED:
                found = await work.change_reencryption(found.id, found.state, state=ReencryptionState.RUNNING)
            return found, False
        record = ReencryptionRecord(
            id=secrets.token_hex(8),
            field_id=registered.id,
            locator=registered.locator,
            batch_rows=batch_rows,
            target=wanted,
            dry_run=dry_run,
        )
        await s.audit.record(work, event_of("reencrypt.begin", record))
        return await work.add_reencryption(record), True


async def begin_job(
    s: Surroundings,
    registered: FieldRecord,
    target: Aim,
    counted: Callable[[], int],
    *,
    batch_rows: int,
    dry_run: bool,
    resume: bool,
) -> tuple[ReencryptionRecord, dict[str, int]]:
    """Return what ``job_for`` does, a new one with its rows ``counted``, and how far it is by now."""
    job, is_new = await job_for(s, registered, target, batch_rows=batch_rows, dry_run=dry_run, resume=resume)
    if is_new:
        total = await asyncio.to_thread(counted)
        with contextlib.suppress(ConflictError):
            async with s.store.transaction() as work:
                job = await work.change_reencryption(job.id, ReencryptionState.RUNNING, rows_total=total)
    async with s.store.reading() as work:
        return job, total_of(await work.chunks(job.id))


async def end_job(s: Surroundings, job: ReencryptionRecord, **counts: Detail) -> None:
    """Mark a job done whose chunks all are; another process may be here too."""
    with contextlib.suppress(ConflictError):
        async with s.store.transaction() as work:
            await s.audit.record(work, event_of("reencrypt.done", job, **counts))
            await work.change_reencryption(job.id, ReencryptionState.RUNNING, state=ReencryptionState.DONE)


def event_of(action: str, job: ReencryptionRecord, **counts: Detail) -> AuditEvent:
    """Return what an audit trail is told of a job."""
    return AuditEvent(
        action, details={"job": job.id, "field": job.field_id, "dry_run": job.dry_run, "locator": job.locator, **counts}
    )


async def _has_newer_keys(work: UnitOfWork, registered: FieldRecord, job: ReencryptionRecord) -> bool:
    """Return whether the keyring of a tenant or a subject was rotated since a job began."""
    if not is_pattern(registered.keyring):
        return False
    since = utc_of(job.created_ms) - _SLACK
    after = 0
    while page := await work.keys(states=[DataKeyState.ACTIVE], after_id=after):
        after = page[-1].id
        for key in page:
            is_newer = key.version > 1 and key.activated_at is not None and key.activated_at > since
            if is_newer and covers(registered.keyring, key.keyring):
                return True
    return False


async def reencryptions(
    km: Manager, field_id: str | None = None, *, after: tuple[int, str] | None = None, limit: int | None = None
) -> list[ReencryptionRecord]:
    """Return the re-encryption jobs of a field, or all, oldest first.

    Args:
        after: ``created_ms`` and ``id`` of the last one seen.
        limit: how many at most.
    """
    async with (await km.session()).surroundings.store.reading() as work:
        return await work.reencryptions(field_id, after=after, limit=limit)


async def pause(km: Manager, job_id: str) -> ReencryptionRecord:
    """Let the workers of a job stop after the batch at hand; starting the same re-encryption again goes on with it.

    Raises:
        KeyNotFoundError: no such job.
        ConflictError: it is not running.
    """
    return await _change(km, job_id, (ReencryptionState.RUNNING,), ReencryptionState.PAUSED)


async def resume(km: Manager, job_id: str) -> ReencryptionRecord:
    """Let workers that are started from now on go on with a paused job; errors as ``pause``."""
    return await _change(km, job_id, (ReencryptionState.PAUSED,), ReencryptionState.RUNNING)


async def cancel(km: Manager, job_id: str) -> ReencryptionRecord:
    """End a job for good, after the batches at hand. What it has written stays; errors as ``pause``."""
    return await _change(km, job_id, UNFINISHED, ReencryptionState.CANCELLED)


async def _change(
    km: Manager, job_id: str, expected: Collection[ReencryptionState], state: ReencryptionState
) -> ReencryptionRecord:
    s = (await km.session()).surroundings
    async with s.store.transaction() as work:
        found = await work.find_reencryption(job_id)
        if found is None:
            raise KeyNotFoundError(f"no re-encryption has the id {job_id!r}; `keystead reencryption list` shows them")
        if found.state not in expected:
            raise ConflictError(f"re-encryption {job_id} is {found.state}; it cannot become {state}")
        await s.audit.record(work, event_of(_ACTIONS[state], found))
        return await work.change_reencryption(job_id, found.state, state=state)
