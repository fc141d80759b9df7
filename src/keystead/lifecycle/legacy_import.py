"""Bringing the Go reference's data keys into the store, as versions that only decrypt: docs/adr/0015-legacy-keys.md.

Two steps: ``plan`` unwraps every key and changes nothing, ``carry_out`` adds what the plan says is new. A version that
was imported already is left alone, so an import that was killed is run again.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Final

from keystead.crypto.keyring import Keyring
from keystead.crypto.legacy import LegacyKey, is_version, unwrap_key
from keystead.errors import InvalidInputError, KeyDecryptionFailError, StoreRestoredError
from keystead.lifecycle.algorithms import LEGACY_ALGORITHM
from keystead.lifecycle.creation import require_usable_wrap, require_writable
from keystead.lifecycle.live_keyrings import LiveKeyrings
from keystead.lifecycle.wrapping import seal_key
from keystead.model import (
    WRAP_KEYRING,
    DataKeyState,
    KeyRecord,
    KeyringPurpose,
    KeyringRecord,
    SecretBytes,
    utc_text,
)
from keystead.model.counts import counted
from keystead.ports import AuditEvent, UnitOfWork

BATCH: Final = 50
KEY_SIZE: Final = 32

CONTEXT_VERSION: Final = "legacy_version"
CONTEXT_EXPOSED: Final = "legacy_exposed"
"""Pairs sealed with an imported key: its old version, and ``true`` where it stood in clear in the old table."""


@dataclass(slots=True)
class LegacyImportReport:
    """What an import did, or would do, by legacy version.

    ``failed`` says why. ``exposed`` keys stood in clear in the source, imported now or before; ``from_clear`` are those
    that only the clear column gave, because the wrapped key does not open. ``disabled`` were revoked in the source.
    ``rotated_to`` is the default keyring's new version, where an exposed key was imported.
    """

    keyring: str
    is_dry_run: bool = False
    imported: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    exposed: list[str] = field(default_factory=list)
    from_clear: list[str] = field(default_factory=list)
    disabled: list[str] = field(default_factory=list)
    rotated_to: int | None = None


@dataclass(frozen=True, slots=True)
class NewKey:
    """A key to import: its row in the source, and the key itself."""

    row: LegacyKey
    key: SecretBytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Plan:
    """What an import will do. ``report`` already tells what is skipped or cannot be imported."""

    new: dict[str, NewKey]
    report: LegacyImportReport

    @property
    def adds_exposed(self) -> bool:
        """Whether a key that stood in clear is about to be imported."""
        return any(new.row.exposed_key for new in self.new.values())


class LegacyImport:
    """Imports keys into one keyring of algorithm ``AES-256-GCM-LEGACY``."""

    def __init__(self, live: LiveKeyrings, keyring: str) -> None:
        self._live = live
        self._s = live.surroundings
        self._name = keyring

    async def plan(self, rows: Iterable[LegacyKey], root_key: bytes) -> Plan:
        """Unwrap every key and compare it with what was imported before; change nothing.

        ``rows`` come oldest first: version numbers follow them.

        Raises:
            KeyDecryptionFailError: not one key opens, so the root key is another one.
            InvalidInputError: a keyring of that name exists and is another kind.
            StoreRestoredError: the store must be recovered first.
        """
        await self._require_place()
        plan = Plan({}, LegacyImportReport(self._name))
        opened = 0
        for row in rows:
            try:
                new = self._open(row, root_key, plan.report)
                opened += 1
                await self._place(new, plan)
            except (KeyDecryptionFailError, InvalidInputError) as refusal:
                plan.report.failed.setdefault(row.version, str(refusal))
        if plan.report.failed and not opened:
            reason = next(iter(plan.report.failed.values()))
            raise KeyDecryptionFailError(f"none of {counted(len(plan.report.failed), 'key')} can be imported: {reason}")
        return plan

    async def carry_out(self, plan: Plan) -> LegacyImportReport:
        """Add the plan's new keys, ``BATCH`` of them in one transaction, and return the finished report."""
        report = plan.report
        waiting = list(plan.new.values())
        for at in range(0, len(waiting), BATCH):
            ring = await self._live.sealing_ring(WRAP_KEYRING)
            batch = waiting[at : at + BATCH]
            async with self._s.store.transaction() as work:
                keyring = await self._claim(work)
                added = [new.row.version for new in batch if await self._add(work, keyring, ring, new)]
            report.imported += added
            report.skipped += [new.row.version for new in batch if new.row.version not in added]
        if waiting:
            await self._live.refresh()
            # The journal outside the database learns of the new keys when their keyring is read.
            await self._live.load(self._name)
        return report

    def _open(self, row: LegacyKey, root_key: bytes, report: LegacyImportReport) -> NewKey:
        """Return the row's key: the wrapped one, or where that does not open the one in clear."""
        if not is_version(row.version):
            raise InvalidInputError("its version is neither v and digits nor a positive integer")
        clear = row.exposed_key if len(row.exposed_key) == KEY_SIZE else None
        if row.exposed_key:
            report.exposed.append(row.version)
        try:
            key = unwrap_key(root_key, row.wrapped_key)
        except KeyDecryptionFailError:
            if clear is None:
                raise
            report.from_clear.append(row.version)
            return NewKey(row, SecretBytes(clear))
        if clear is not None and clear != key:
            raise InvalidInputError("key_data and encrypted_key hold two different keys; set the wrong one to NULL")
        return NewKey(row, key)

    async def _place(self, new: NewKey, plan: Plan) -> None:
        """Put the key where it belongs in the plan: new, or there already."""
        version = new.row.version
        twin = plan.new.get(version)
        known = twin.key if twin is not None else await self._known_key(version)
        if known is None:
            plan.new[version] = new
            if new.row.is_revoked:
                plan.report.disabled.append(version)
        elif known in (b"", new.key):
            plan.report.skipped.append(version)
        else:
            raise InvalidInputError("another key has this version already; import this source into another store")

    async def _known_key(self, version: str) -> bytes | None:
        """Return the key imported under ``version``, nothing of it where it was destroyed, None where there is none."""
        async with self._s.store.reading() as work:
            row = await work.find_legacy_key(version)
            keyring = await work.find_keyring(row.keyring) if row is not None else None
        if row is None or keyring is None:
            return None
        if row.state is DataKeyState.DESTROYED:
            return b""
        loaded = await self._live.unwrap(keyring, row)
        try:
            await self._live.uses.loaded(keyring.name, [row.version])
            return bytes(loaded.key)
        finally:
            loaded.wipe()

    async def _require_place(self) -> None:
        async with self._s.store.reading() as work:
            if (await work.state()).restored:
                raise StoreRestoredError
            keyring = await work.find_keyring(self._name)
        if keyring is not None:
            _require_kind(keyring)

    async def _claim(self, work: UnitOfWork) -> KeyringRecord:
        """Return the keyring, made if it is new, and locked."""
        wanted = KeyringRecord(
            self._name, KeyringPurpose.ENCRYPT, LEGACY_ALGORITHM, WRAP_KEYRING, created_at=self._s.clock.now()
        )
        if await work.add_keyring(wanted):
            await self._s.audit.record(work, AuditEvent("keyring.create", self._name))
        keyring = await work.find_keyring(self._name, lock=True) or wanted
        await require_writable(work)
        _require_kind(keyring)
        return keyring

    async def _add(self, work: UnitOfWork, keyring: KeyringRecord, ring: Keyring, new: NewKey) -> bool:
        """Insert the key as a decrypt-only version; False when another import was faster."""
        if await work.find_legacy_key(new.row.version) is not None:
            return False
        version = await work.take_version(keyring.name)
        row = seal_key(ring, self._live.store_id, self._row(keyring, version, new.row), new.key)
        is_exposed = int(bool(new.row.exposed_key))
        await self._s.audit.record(
            work,
            AuditEvent(
                "key.import",
                keyring.name,
                row.id,
                {"version": version, "legacy_version": new.row.version, "exposed": is_exposed},
            ),
        )
        await work.add_key(row)
        await require_usable_wrap(work, row.wrapped_by)
        return True

    def _row(self, keyring: KeyringRecord, version: int, source: LegacyKey) -> KeyRecord:
        exposed = {CONTEXT_EXPOSED: "true"} if source.exposed_key else {}
        return replace(
            self._s.new_row(keyring, version),
            state=DataKeyState.DISABLED if source.is_revoked else DataKeyState.DECRYPT_ONLY,
            created=utc_text(source.created_at or self._s.clock.now()),
            expires_at=source.expires_at,
            context={CONTEXT_VERSION: source.version, **exposed},
            legacy_version=source.version,
        )


def _require_kind(keyring: KeyringRecord) -> None:
    if keyring.algorithm != LEGACY_ALGORITHM:
        raise InvalidInputError(
            f"keyring {keyring.name!r} exists and encrypts data; name another one for the imported keys"
        )
