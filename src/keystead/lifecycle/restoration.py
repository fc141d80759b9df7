"""Export, import, verify, recover: operations before, and in, the hour of need.

A store that was restored decrypts what it can and encrypts nothing, because it would give a version number, or worse
an active key, a second time. ``recover`` makes it whole: every active key is rotated past the version numbers that
may have been used, known destructions are done again, and the ids that are gone are named.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass, field, replace
from typing import Final

from keystead.crypto.keyring import Keyring
from keystead.crypto.snapshot import KeyringSnapshot, LoadedKey
from keystead.errors import InvalidInputError, KMSError
from keystead.lifecycle.creation import not_restored_error
from keystead.lifecycle.destruction import SHORTEST_WAIT, Destruction, store_time
from keystead.lifecycle.key_pages import all_keys
from keystead.lifecycle.live_keyrings import EPOCH_LEAP, LiveKeyrings
from keystead.lifecycle.portable import StoreExport
from keystead.lifecycle.rewrap import Rewrap
from keystead.lifecycle.rotation import Guard, Rotation
from keystead.lifecycle.succession import Succession
from keystead.lifecycle.surroundings import Surroundings
from keystead.lifecycle.wrapping import open_key
from keystead.model import DataKeyState, KeyRecord, KeyringPurpose, KeyringRecord, utc_text
from keystead.ports import AuditEvent, AuditStateRow, Detail, KeyStore, SubjectRecord, TransitKeyRecord, UnitOfWork

log = logging.getLogger("keystead.lifecycle")

SKIPPED_VERSIONS: Final = 1000
PAGE: Final = 1000


@dataclass(frozen=True, slots=True)
class VerifyReport:
    """How many keys unwrapped, and which did not: id -> why."""

    keys: int = 0
    failures: dict[int, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class RecoveryReport:
    """What ``recover`` did: keyrings rotated, destructions replayed, keys that are gone (id, keyring, version).

    ``postponed`` keys wait to be destroyed, for at least another week: that this was called off may have been lost.
    """

    rotated: int = 0
    destroyed_again: list[int] = field(default_factory=list)
    postponed: list[int] = field(default_factory=list)
    gone: list[tuple[int, str, int]] = field(default_factory=list)


async def export_store(live: LiveKeyrings) -> StoreExport:
    """Return every row of the store, read in one transaction."""
    async with live.surroundings.store.reading() as work:
        state = await work.state()
        keyrings: list[KeyringRecord] = []
        while True:
            page = await work.keyrings(after=keyrings[-1].name if keyrings else "", limit=PAGE)
            keyrings += page
            if len(page) < PAGE:
                break
        keys = await all_keys(work)
        uses = await work.key_uses()
        registered = await work.fields()
        subjects: list[SubjectRecord] = []
        while page_of_subjects := await work.subjects(after=subjects[-1].id if subjects else b"", limit=PAGE):
            subjects += page_of_subjects
        mark = await work.erasure_mark()
        transit_keys: list[TransitKeyRecord] = []
        while page_of_transit := await work.all_transit_keys(after=transit_keys[-1].keyring if transit_keys else ""):
            transit_keys += page_of_transit
        no_upsert = await work.tenants_without_upsert()
    now = live.surroundings.clock.now()
    return StoreExport(state, now, keyrings, keys, uses, registered, subjects, mark, transit_keys, no_upsert)


async def import_store(store: KeyStore, export: StoreExport, audit_state: AuditStateRow | None = None) -> None:
    """Fill an empty store with an export; it is restored, and must be recovered before it encrypts.

    Args:
        audit_state: the state of the audit trail that the store is to have, where it kept one.

    Raises:
        InvalidInputError: the store holds keys already.
    """
    await store.open()
    async with store.transaction() as work:
        if await work.keys(limit=1) or await work.keyrings(limit=1):
            raise InvalidInputError("this store holds keys already; import into an empty one")
        await work.adopt(export.state.store_id, export.state.epoch)
        for keyring in export.keyrings:
            await work.add_keyring(keyring)
        for key in export.keys:
            await work.add_key(key)
        for use in export.uses:
            await work.declare_use(use)
        for registered in export.fields:
            await work.put_field(registered)
        await work.add_subjects(export.subjects)
        if export.erasures is not None:
            await work.put_erasure_mark(export.erasures)
        for record in export.transit_keys:
            await work.add_transit_key(record)
        for tenant in export.no_upsert:
            await work.disable_upsert(tenant, True)
        if export.state.audited:
            await work.set_audited(True)
        if audit_state is not None:
            await work.put_audit_state(audit_state, expected=None)


async def verify_store(s: Surroundings, document: StoreExport) -> VerifyReport:
    """Unwrap every key of an export, with the KEK and nothing but the export, and tell which do not unwrap."""
    store_id = document.state.store_id
    keyrings = {keyring.name: keyring for keyring in document.keyrings}
    rows = [row for row in document.keys if row.state is not DataKeyState.DESTROYED]
    failures: dict[int, str] = {}
    wraps: dict[str, Keyring] = {}
    for row in rows:
        if row.purpose is KeyringPurpose.WRAP:
            try:
                key = await s.wrapper.unwrap(store_id, row)
            except KMSError as exc:
                failures[row.id] = exc.code
            else:
                ring = wraps.setdefault(row.keyring, Keyring(row.keyring, random=s.random))
                _add(ring, row, key)
    for row in rows:
        if row.purpose is KeyringPurpose.WRAP:
            continue
        wrap_ring = wraps.get(keyrings[row.keyring].wrap_keyring) if row.keyring in keyrings else None
        if wrap_ring is None or row.wrapped_by not in wrap_ring.snapshot.keys:
            failures[row.id] = "its keyring or WRAP key is missing"
            continue
        try:
            open_key(wrap_ring, store_id, row)
        except KMSError as exc:
            failures[row.id] = exc.code
    for wrap_ring in wraps.values():
        wrap_ring.wipe()
    return VerifyReport(len(rows), failures)


async def open_active(s: Surroundings, document: StoreExport, name: str) -> Keyring | None:
    """Return a keyring of an export with its active version alone; None where there is none. Errors as the KMS's.

    Every key of the export has been found to unwrap. The caller wipes the keyring.
    """
    rows = {row.id: row for row in document.keys}
    active = [row for row in document.keys if row.keyring == name and row.state is DataKeyState.ACTIVE]
    if not active:
        return None
    row, wrap_row = active[0], rows[active[0].wrapped_by or 0]
    wrap_ring, ring = Keyring(wrap_row.keyring, random=s.random), Keyring(name, suite=0, random=s.random)
    _add(wrap_ring, wrap_row, await s.wrapper.unwrap(document.state.store_id, wrap_row))
    try:
        _add(ring, row, open_key(wrap_ring, document.state.store_id, row))
    finally:
        wrap_ring.wipe()
    return ring


def _add(ring: Keyring, row: KeyRecord, key: bytes) -> None:
    loaded = LoadedKey(row.id, row.version, bytearray(key))
    active = row.id if row.state is DataKeyState.ACTIVE else ring.snapshot.active
    ring.load(KeyringSnapshot({**ring.snapshot.keys, row.id: loaded}, active))


async def recover_store(live: LiveKeyrings, rotation: Rotation, destruction: Destruction) -> RecoveryReport:
    """Make a restored store encrypt again.

    Safe to run again after a crash: the mark is taken off last.

    Raises:
        InvalidInputError: the store is not restored, or another process has recovered it meanwhile.
    """
    s = live.surroundings
    seen = await asyncio.to_thread(s.journal.read, live.store_id)
    async with s.store.transaction() as work:
        state = await work.state(lock=True)
        if not state.restored:
            raise not_restored_error()
        await s.audit.record(work, AuditEvent("store.recover"))
        await work.raise_epoch(max(seen.epoch, state.epoch) + EPOCH_LEAP)
    document = await export_store(live)
    held = {key.id for key in document.keys}
    # Before anything is rotated: the journal's view goes on growing.
    gone = [(key_id, *where) for key_id, where in sorted(seen.keys.items()) if key_id not in held]
    rotated, succession = 0, Succession(document, seen)
    # WRAP keyrings first: the new versions of the others are wrapped by theirs.
    for keyring in sorted(document.keyrings, key=lambda one: (one.purpose is not KeyringPurpose.WRAP, one.name)):
        if succession.follows(keyring):
            await rotation.rotate(
                keyring.name,
                promote="now",
                during_recovery=True,
                skip_versions=SKIPPED_VERSIONS,
                guard=_rotated_here(succession.transit.get(keyring.name)),
            )
            rotated += 1
        else:
            async with s.store.transaction() as work:
                await work.take_version(keyring.name, skip=SKIPPED_VERSIONS - 1)
    await _forget_indexed(s.store)
    lost = [key for key in document.keys if key.id in seen.destroyed and key.state is not DataKeyState.DESTROYED]
    destroyed_again = await _destroy_again(live, rotation, destruction, lost)
    async with s.store.transaction() as work:
        for record in succession.deleted:
            await work.drop_transit_key(record.keyring)
    postponed = await _postpone(live)
    counts: dict[str, Detail] = {
        "rotated": rotated,
        "destroyed_again": len(destroyed_again),
        "postponed": len(postponed),
        "gone": len(gone),
    }
    async with s.store.transaction() as work:
        await s.audit.record(work, AuditEvent("store.recovered", details=counts))
        await work.set_restored(False)
    await live.refresh()
    return RecoveryReport(rotated, destroyed_again, postponed, gone)


async def _forget_indexed(store: KeyStore) -> None:
    """Have every field filled again before a rotation of its index key finishes: its rows may be older than noted."""
    async with store.transaction() as work:
        for registered in await work.fields():
            await work.put_field(replace(registered, indexed_version=None))


def _rotated_here(record: TransitKeyRecord | None) -> Guard | None:
    """Return what notes with a rotation that a Transit key is no longer made of imported material alone."""
    if record is None or not record.imported:
        return None

    async def note(work: UnitOfWork) -> None:
        await work.put_transit_key(replace(record, imported=False))

    return note


async def _destroy_again(
    live: LiveKeyrings, rotation: Rotation, destruction: Destruction, lost: list[KeyRecord]
) -> list[int]:
    """Destroy what had been destroyed after the backup; a WRAP key once nothing is wrapped by it any more."""
    rewrap = Rewrap(live, rotation)
    done = []
    for key in sorted(lost, key=lambda key: (key.purpose is KeyringPurpose.WRAP, key.id)):
        try:
            if key.purpose is KeyringPurpose.WRAP:
                await rewrap.data_rows(key.keyring)
            async with live.surroundings.store.reading() as work:
                current = await work.find_key(key.id) or key
            await destruction.destroy_now(current)
            done.append(key.id)
        except KMSError as exc:
            log.warning("a data key was not destroyed again: %s", exc.code, extra={"data_key_id": key.id})
    return sorted(done)


async def _postpone(live: LiveKeyrings) -> list[int]:
    async with live.surroundings.store.reading() as work:
        earliest = await store_time(work) + SHORTEST_WAIT
    pending = [key for key in (await export_store(live)).keys if key.state is DataKeyState.PENDING_DESTROY]
    for key in pending:
        until = max(key.destroy_after or earliest, earliest)
        details: dict[str, Detail] = {"version": key.version, "destroy_after": utc_text(until)}
        event = AuditEvent("key.postpone_destroy", key.keyring, key.id, details)
        async with live.surroundings.store.transaction() as work:
            await live.surroundings.audit.record(work, event)
            epoch = await work.bump_epoch()
            await work.change_key(key.id, key.state, destroy_after=until, published_epoch=epoch)
    return sorted(key.id for key in pending)
