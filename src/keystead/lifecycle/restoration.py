"""Export, import, verify, recover: operations before, and in, the hour of need.

A store that was restored decrypts what it can and encrypts nothing, because it would give a version number, or worse
an active key, a second time. ``recover`` makes it whole: every active key is rotated past the version numbers that
may have been used, known destructions are done again, and the ids that are gone are named.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Final

from keystead.errors import InvalidInputError, KMSError
from keystead.lifecycle.destruction import Destruction
from keystead.lifecycle.live_keyrings import LiveKeyrings
from keystead.lifecycle.portable import StoreExport
from keystead.lifecycle.rotation import Rotation
from keystead.model import WRAP_KEYRING, DataKeyState, KeyRecord, KeyringPurpose, KeyringRecord
from keystead.ports import AuditEvent, KeyStore

SKIPPED_VERSIONS: Final = 1000
EPOCH_LEAP: Final = 1_000_000
"""Added to the highest epoch known, so that no node that knew a higher one takes the recovered store for older."""
PAGE: Final = 1000


@dataclass(frozen=True, slots=True)
class VerifyReport:
    """How many keys unwrapped, and which did not: id -> why."""

    keys: int = 0
    failures: dict[int, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class RecoveryReport:
    """What ``recover`` did: keyrings rotated, destructions replayed, and the keys that are gone (id, keyring, version)."""

    rotated: int = 0
    destroyed_again: list[int] = field(default_factory=list)
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
        keys: list[KeyRecord] = []
        while True:
            rows = await work.keys(after_id=keys[-1].id if keys else 0, limit=PAGE)
            keys += rows
            if len(rows) < PAGE:
                break
    return StoreExport(state, live.surroundings.clock.now(), keyrings, keys)


async def import_store(store: KeyStore, export: StoreExport) -> None:
    """Fill an empty store with an export; it is restored, and must be recovered before it encrypts.

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


async def verify_store(live: LiveKeyrings, export: StoreExport | None = None) -> VerifyReport:
    """Unwrap every key of the store, or of an export of it, and tell which do not unwrap."""
    document = export or await export_store(live)
    keyrings = {keyring.name: keyring for keyring in document.keyrings}
    wraps = {row.id: row for row in document.keys if row.purpose is KeyringPurpose.WRAP}
    checked, failures = 0, {}
    for row in document.keys:
        if row.state is DataKeyState.DESTROYED:
            continue
        checked += 1
        try:
            if row.purpose is KeyringPurpose.WRAP:
                await live.surroundings.wrapper.unwrap(document.state.store_id, row)
            elif row.keyring not in keyrings or row.wrapped_by not in wraps:
                failures[row.id] = "its keyring or WRAP key is missing"
            else:
                (await live.unwrap(keyrings[row.keyring], row)).wipe()
        except KMSError as exc:
            failures[row.id] = exc.code
    return VerifyReport(checked, failures)


async def recover_store(live: LiveKeyrings, rotation: Rotation, destruction: Destruction) -> RecoveryReport:
    """Make a restored store encrypt again.

    Safe to run again after a crash: the mark is taken off last.

    Raises:
        InvalidInputError: the store is not restored.
    """
    s = live.surroundings
    async with s.store.reading() as work:
        if not (await work.state()).restored:
            raise InvalidInputError("this store is not restored; there is nothing to recover")
    seen = await asyncio.to_thread(s.journal.read, live.store_id)
    async with s.store.transaction() as work:
        await s.audit.record(work, AuditEvent("store.recover"))
        await work.raise_epoch(max(seen.epoch, (await work.state()).epoch) + EPOCH_LEAP)
    document = await export_store(live)
    held = {key.id: key for key in document.keys}
    destroyed_again = []
    for key_id in sorted(seen.destroyed):
        key = held.get(key_id)
        if key is not None and key.state is not DataKeyState.DESTROYED:
            await destruction.destroy_now(key)
            destroyed_again.append(key_id)
    names = sorted((k.name for k in document.keyrings), key=lambda name: (name != WRAP_KEYRING, name))
    for name in names:
        await rotation.rotate(name, promote="now", during_recovery=True, skip_versions=SKIPPED_VERSIONS)
    async with s.store.transaction() as work:
        await work.set_restored(False)
        await work.bump_epoch()
    await live.refresh()
    gone = [(key_id, *where) for key_id, where in sorted(seen.keys.items()) if key_id not in held]
    return RecoveryReport(len(names), destroyed_again, gone)
