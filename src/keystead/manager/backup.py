"""Export, verify, import and recover, for the command line and whatever else runs them."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from keystead.errors import KeyDecryptionFailError
from keystead.ledger.audit.keys import StateKeys
from keystead.ledger.audit.standing import first_state, new_stream
from keystead.lifecycle import portable, restoration
from keystead.lifecycle.portable import StoreExport
from keystead.lifecycle.restoration import RecoveryReport, VerifyReport
from keystead.lifecycle.surroundings import Surroundings
from keystead.manager.audit_mark import AuditMark
from keystead.manager.consent import approvals_of_empty, approved
from keystead.manager.manager import KeyManager
from keystead.model import AUDIT_KEYRING, Act, Action, utc_text
from keystead.model.counts import counted
from keystead.ports import AuditStateRow


async def export_text(km: KeyManager) -> str:
    """Return the whole store as one document: wrapped rows, never a key in clear."""
    session = await km.session()
    document = await restoration.export_store(session.live)
    is_kept = await AuditMark(session.live).is_on(is_set=document.state.audited)
    document = replace(document, state=replace(document.state, audited=is_kept))
    await session.live.uses.note("store.export", keys=len(document.keys), keyrings=len(document.keyrings))
    return portable.dump(document)


async def note_export(km: KeyManager, export: StoreExport) -> None:
    """Remember, outside the database, that an export was made; `keystead doctor` compares it with the newest data key.

    Call it when the export is safely written. The manager need not be initialised.
    """
    state, journal = export.state, km.surroundings().journal
    await asyncio.to_thread(journal.append, state.store_id, epoch=state.epoch, exported_at=export.exported_at)


def read_export(text: str) -> StoreExport:
    """Return the export in ``text``.

    Raises:
        InvalidInputError: no export, one of a newer release, or a damaged one.
    """
    return portable.parse(text)


async def verify(km: KeyManager, export: StoreExport | None = None) -> VerifyReport:
    """Unwrap every key of the store, or of an export, for which the manager need not be initialised."""
    if export is not None:
        return await restoration.verify_store(km.surroundings(), export)
    session = await km.session()
    document = await restoration.export_store(session.live)
    report = await restoration.verify_store(km.surroundings(), document)
    await session.live.uses.note("store.verify", keys=report.keys, failures=len(report.failures))
    return report


async def import_export(km: KeyManager, export: StoreExport) -> VerifyReport:
    """Fill the manager's empty store with an export whose every key the manager's KEK opens.

    The manager must not be initialised, since that would fill the store.

    Raises:
        KeyDecryptionFailError: the KEK does not open the export; nothing was written.
        InvalidInputError: the store holds keys already.
        ApprovalRequiredError: the manager was told to ask for two people.
    """
    surroundings = km.surroundings()
    if km.wants_two:
        await surroundings.store.open()
        async with approved(approvals_of_empty(surroundings), _act(export)):
            return await _import(surroundings, export)
    return await _import(surroundings, export)


def _act(export: StoreExport) -> Act:
    """Return what a second person approves: this export, as it was made."""
    details = {"exported_at": utc_text(export.exported_at), "sha256": portable.digest_of(export)}
    return Act(Action.STORE_IMPORT, export.state.store_id, details)


async def _import(surroundings: Surroundings, export: StoreExport) -> VerifyReport:
    report = await restoration.verify_store(surroundings, export)
    if report.failures:
        raise KeyDecryptionFailError(
            f"{len(report.failures)} of {counted(report.keys, 'key')} in the export cannot be opened with this KEK; "
            "nothing was imported: configure the KEK the export was made with, or use another copy of the export"
        )
    state = await _audit_state(surroundings, export)
    await restoration.import_store(surroundings.store, export, state)
    return report


async def _audit_state(s: Surroundings, export: StoreExport) -> AuditStateRow | None:
    """Return the state of a trail that has yet to begin, or has ended, as the exported store's had; None without one.

    It is what tells an import from a store whose trail somebody has removed.
    """
    ring = await restoration.open_active(s, export, AUDIT_KEYRING)
    if ring is None:
        return None
    store, keys = export.state, StateKeys(ring)
    try:
        over = None if store.audited else store.epoch
        return first_state(keys, store.store_id, new_stream(store.store_id, s.random), over=over)
    finally:
        ring.wipe()


async def recover(km: KeyManager) -> RecoveryReport:
    """Make a restored store encrypt again; see ``restoration.recover_store``."""
    session = await km.session()
    return await restoration.recover_store(session.live, session.lifecycle.rotation, session.lifecycle.destruction)
