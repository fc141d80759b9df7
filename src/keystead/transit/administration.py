"""Making, changing and ending Transit keys. Each is one transaction, with its record in the audit trail."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final

from keystead.errors import ConflictError, InvalidInputError, KeyRotationError, KMSError
from keystead.lifecycle.creation import NewKey, create_within, require_writable
from keystead.lifecycle.destruction import destroy_within
from keystead.lifecycle.key_pages import all_keys
from keystead.lifecycle.rotation import Rotation
from keystead.lifecycle.wrap_keyrings import retry_conflicts
from keystead.lifecycle.wrapping import open_key, seal_key
from keystead.model import WRAP_KEYRING, Act, Action, DataKeyState, KeyRecord, TransitType
from keystead.ports import AuditEvent, Consent, Detail, Freely, TransitKeyRecord, UnitOfWork
from keystead.transit.importing import completed
from keystead.transit.kinds import algorithm_name, purpose_of, require_possible
from keystead.transit.names import keyring_name, require_name
from keystead.transit.opened import SOFT_DELETED, OpenKey
from keystead.transit.room import Transit

SHORTEST_PERIOD_S: Final = 3600
KEY_NOT_FOUND: Final = "key not found"
_EXISTS: Final = (
    "the import path cannot be used with an existing key; use import-version to rotate an existing imported key"
)


@dataclass(frozen=True, slots=True)
class KeyChanges:
    """What a change of configuration sets; None leaves what there is.

    ``exportable`` and ``allow_plaintext_backup`` can be set, and never unset.
    """

    min_decryption: int | None = None
    min_encryption: int | None = None
    deletion_allowed: bool | None = None
    exportable: bool | None = None
    allow_plaintext_backup: bool | None = None
    auto_rotate_s: int | None = None


@dataclass(frozen=True, slots=True)
class NewTransitKey:
    """A key to be made."""

    type: TransitType = TransitType.AES_256
    derived: bool = False
    convergent: bool = False
    exportable: bool = False
    allow_plaintext_backup: bool = False
    auto_rotate_s: int = 0
    key_size: int = 0
    imported: bool = False
    allow_rotation: bool = False


class Administration:
    """Makes and changes keys of a room."""

    def __init__(self, room: Transit, rotation: Rotation, consent: Consent | None = None) -> None:
        self._consent = consent or Freely()
        self._room = room
        self._live = room.live
        self._s = room.live.surroundings
        self._rotation = rotation

    async def create(self, tenant: str, name: str, wanted: NewTransitKey, *, material: NewKey | None = None) -> OpenKey:
        """Make a key, unless there is one of that name: it stays as it is.

        Args:
            material: its first version, where it comes from outside; then a key of that name is refused.

        Raises:
            InvalidInputError: a name or options that cannot be.
        """
        require_name(name)
        require_period(wanted.auto_rotate_s)
        if material is None and (known := await self._room.find(tenant, name)) is not None:
            return known
        require_possible(wanted.type, derived=wanted.derived, convergent=wanted.convergent, key_size=wanted.key_size)
        algorithm = algorithm_name(wanted.type, convergent=wanted.convergent, key_size=wanted.key_size)
        first = self._s.new_keyring(keyring_name(tenant, name, 1), purpose_of(wanted.type), algorithm)
        key = material or NewKey(await self._s.new_key(first))

        async def made() -> None:
            ring = await self._live.sealing_ring(WRAP_KEYRING)
            async with self._s.store.transaction() as work:
                await work.bump_epoch()
                if await work.find_transit_key(tenant, name) is not None:
                    if material is None:
                        return
                    raise InvalidInputError(_EXISTS)
                generation = 1
                while await work.find_keyring(keyring_name(tenant, name, generation)) is not None:
                    generation += 1
                keyring = replace(first, name=keyring_name(tenant, name, generation))
                await create_within(self._s, work, keyring, store_id=self._live.store_id, wrap_ring=ring, key=key)
                options = {each: getattr(wanted, each) for each in NewTransitKey.__slots__}
                record = TransitKeyRecord(keyring.name, tenant, name, created_at=self._s.clock.now(), **options)
                await self._note(work, "transit.create", record, type=wanted.type.value)
                await work.add_transit_key(record)

        await retry_conflicts(made)
        await self._live.refresh()
        return await self._again(tenant, name)

    async def rotate(self, tenant: str, name: str) -> OpenKey:
        """Add a version, which encrypts from now on.

        Raises:
            InvalidInputError: no such key, a soft-deleted one, or an imported one that may not be rotated here.
        """
        record = await self._find(tenant, name)
        _require_rotatable(record)

        async def guard(work: UnitOfWork) -> None:
            now = await self._locked(work, tenant, name, record.keyring)
            _require_rotatable(now)
            if now.imported:
                await work.put_transit_key(replace(now, imported=False))

        await self._rotation.rotate(record.keyring, promote="now", guard=guard)
        return await self._again(tenant, name)

    async def add_version(self, tenant: str, name: str, material: NewKey) -> OpenKey:
        """Add a version made of key material from outside, to a key that was made of such.

        Raises:
            InvalidInputError: no such key, or one that was made or rotated here.
        """
        record = await self._find(tenant, name)

        async def guard(work: UnitOfWork) -> None:
            self.require_imported(await self._locked(work, tenant, name, record.keyring))

        await self._rotation.add(record.keyring, material, guard)
        return await self._again(tenant, name)

    async def require_no_key(self, tenant: str, name: str) -> None:
        """Raise ``InvalidInputError`` if there is a key of a name: material from outside never becomes part of it."""
        if await self._room.find(tenant, name) is not None:
            raise InvalidInputError(_EXISTS)

    def require_imported(self, record: TransitKeyRecord) -> None:
        """Raise ``InvalidInputError`` unless a key is made of material from outside, and of nothing else."""
        if not record.imported:
            raise InvalidInputError("the import_version endpoint can only be used with an imported key")

    async def complete(self, tenant: str, name: str, version: int, data: bytes) -> OpenKey:
        """Add the private half, PKCS #8 in DER, to a version that has its public half alone.

        Raises:
            InvalidInputError: it belongs to another public half.
        """
        record = await self._find(tenant, name)
        ring = await self._live.sealing_ring(WRAP_KEYRING)
        async with self._s.store.transaction() as work:
            epoch = await work.bump_epoch()
            self.require_imported(await self._locked(work, tenant, name, record.keyring))
            row = await work.find_active(record.keyring)
            if row is None or row.version != version:
                raise ConflictError("the key was rotated meanwhile; try again")
            await self._live.ensure_wrap_key(ring, row)
            held = open_key(ring, self._live.store_id, row)
            sealed = seal_key(ring, self._live.store_id, row, completed(record.type, held, data))
            await self._note(work, "transit.complete", record, version=version)
            await work.change_key(
                row.id, row.state, wrapped_key=sealed.wrapped_key, wrapped_by=sealed.wrapped_by, published_epoch=epoch
            )
        await self._live.refresh()
        await self._room.load_again(await self._again(tenant, name), version)
        return await self._again(tenant, name)

    async def configure(self, tenant: str, name: str, changes: KeyChanges) -> OpenKey:
        """Change what a key allows; nothing is changed where one of the changes is refused.

        Raises:
            InvalidInputError: no such key, or a change that cannot be.
        """
        missing = f"no existing key named {name} could be found"

        async def change(work: UnitOfWork, record: TransitKeyRecord, latest: int) -> TransitKeyRecord:
            return _changed(record, changes, latest)

        return await self._change(tenant, name, "transit.config", change, missing=missing)

    async def trim(self, tenant: str, name: str, min_available: int) -> OpenKey:
        """Destroy every version before ``min_available``, for good.

        Raises:
            InvalidInputError: no such key, or versions that are still allowed to decrypt or encrypt.
        """

        async def change(work: UnitOfWork, record: TransitKeyRecord, latest: int) -> TransitKeyRecord:
            _require_trimmable(record, min_available)
            rows = await all_keys(work, keyring=record.keyring)
            await destroy_within(self._s, work, [row for row in rows if row.version < min_available])
            return replace(record, min_available=min_available)

        act = Act(Action.TRANSIT_TRIM, name, {"min_available": min_available}, tenant)
        async with self._consent.given(act):
            return await self._change(tenant, name, "transit.trim", change, missing="invalid key name")

    async def soft_delete(self, tenant: str, name: str, *, deleted: bool = True) -> bool:
        """Take a key out of use, or back into it; False where it was so, or there is no such key."""
        was_changed = False

        async def change(work: UnitOfWork, record: TransitKeyRecord, latest: int) -> TransitKeyRecord:
            nonlocal was_changed
            was_changed = record.soft_deleted is not deleted
            return replace(record, soft_deleted=deleted)

        action = "transit.soft_delete" if deleted else "transit.restore"
        await self._change(tenant, name, action, change, missing=KEY_NOT_FOUND)
        return was_changed

    async def delete(self, tenant: str, name: str) -> None:
        """Destroy a key and all its versions, for good.

        Raises:
            InvalidInputError: no such key, or one whose deletion is not allowed.
        """
        act = Act(Action.TRANSIT_DELETE, name, tenant=tenant)
        async with self._consent.given(act), self._s.store.transaction() as work:
            await work.bump_epoch()
            record = await work.find_transit_key(tenant, name, lock=True)
            if record is None:
                raise InvalidInputError(f"error deleting policy {name}: could not delete key; not found")
            if not record.deletion_allowed:
                raise InvalidInputError(f"error deleting policy {name}: deletion is not allowed for this key")
            await self._note(work, "transit.delete", record)
            await destroy_within(self._s, work, await all_keys(work, keyring=record.keyring))
            await work.drop_transit_key(record.keyring)
        self._room.forget(tenant, name)
        # The destroyed versions go out of use here, and into the journal outside the database.
        await self._live.refresh()

    async def disable_upsert(self, tenant: str, disabled: bool) -> None:
        """Set whether encrypting under a name that is no key's makes no key."""
        async with self._s.store.transaction() as work:
            event = AuditEvent("transit.settings", details={"tenant": tenant, "disable_upsert": disabled})
            await self._s.audit.record(work, event)
            await work.disable_upsert(tenant, disabled)

    async def rotate_due(self) -> int:
        """Rotate every key whose latest version is as old as its period; return how many.

        Raises:
            KeyRotationError: one of them could not be rotated; the others were.
        """
        failed, rotated, after = [], 0, ""
        while True:
            async with self._s.store.reading() as work:
                page = await work.all_transit_keys(after=after, rotating=True)
                active = {each.keyring: await work.find_active(each.keyring) for each in page}
            for record in page:
                if _is_due(record, active[record.keyring], self._s.clock.now()):
                    try:
                        await self.rotate(record.tenant, record.name)
                        rotated += 1
                    except KMSError as exc:
                        failed.append(f"{record.name!r} ({exc.code})")
            if not page:
                break
            after = page[-1].keyring
        if failed:
            told = ", ".join(failed[:5])
            raise KeyRotationError(f"{len(failed)} Transit key(s) could not be rotated: {told}; the old versions stay")
        return rotated

    async def _change(
        self,
        tenant: str,
        name: str,
        action: str,
        change: Callable[[UnitOfWork, TransitKeyRecord, int], Awaitable[TransitKeyRecord]],
        *,
        missing: str,
    ) -> OpenKey:
        async with self._s.store.transaction() as work:
            # First, as whoever changes keys does: two changes of one key wait for each other.
            await work.bump_epoch()
            await require_writable(work, lock=False)
            record = await work.find_transit_key(tenant, name, lock=True)
            if record is None:
                raise InvalidInputError(missing)
            active = await work.find_active(record.keyring)
            changed = await change(work, record, 0 if active is None else active.version)
            told = {
                each: getattr(changed, each)
                for each in record.__slots__
                if getattr(changed, each) != getattr(record, each)
            }
            if told:
                await self._note(work, action, record, **told)
                await work.put_transit_key(changed)
        await self._live.refresh()
        return await self._again(tenant, name)

    async def _find(self, tenant: str, name: str) -> TransitKeyRecord:
        return (await self._room.open(tenant, name, missing=KEY_NOT_FOUND)).record

    async def _locked(self, work: UnitOfWork, tenant: str, name: str, keyring: str) -> TransitKeyRecord:
        record = await work.find_transit_key(tenant, name, lock=True)
        if record is None or record.keyring != keyring:
            raise InvalidInputError(KEY_NOT_FOUND)
        return record

    async def _again(self, tenant: str, name: str) -> OpenKey:
        # Not from a look that began before the change was committed.
        key = await self._room.read(tenant, name)
        if key is None:
            raise InvalidInputError(KEY_NOT_FOUND)
        return key

    async def _note(self, work: UnitOfWork, action: str, record: TransitKeyRecord, **details: Detail) -> None:
        told: dict[str, Detail] = {"name": record.name, **details}
        if record.tenant:
            told["tenant"] = record.tenant
        await self._s.audit.record(work, AuditEvent(action, record.keyring, details=told))


def require_period(seconds: int) -> None:
    """Raise ``InvalidInputError`` unless a key may be rotated by such an age."""
    if seconds != 0 and seconds < SHORTEST_PERIOD_S:
        raise InvalidInputError("auto rotate period must be 0 to disable or at least an hour")


def _require_rotatable(record: TransitKeyRecord) -> None:
    if record.soft_deleted:
        raise InvalidInputError(SOFT_DELETED)
    if record.imported and not record.allow_rotation:
        raise InvalidInputError(f"imported key {record.name} does not allow rotation within Vault")


def _is_due(record: TransitKeyRecord, active: KeyRecord | None, now: datetime) -> bool:
    if record.soft_deleted or (record.imported and not record.allow_rotation) or active is None:
        return False
    period = timedelta(seconds=record.auto_rotate_s)
    return active.state is DataKeyState.ACTIVE and active.created_at <= now - period


def _changed(record: TransitKeyRecord, changes: KeyChanges, latest: int) -> TransitKeyRecord:
    decryption = record.min_decryption if changes.min_decryption is None else changes.min_decryption
    encryption = record.min_encryption if changes.min_encryption is None else changes.min_encryption
    if decryption < 0:
        raise InvalidInputError("min decryption version cannot be negative")
    decryption = max(decryption, 1)
    if decryption > latest:
        raise InvalidInputError(f"cannot set min decryption version of {decryption}, latest key version is {latest}")
    if encryption < 0:
        raise InvalidInputError("min encryption version cannot be negative")
    if encryption > latest:
        raise InvalidInputError(f"cannot set min encryption version of {encryption}, latest key version is {latest}")
    if 0 < encryption < decryption:
        raise InvalidInputError(
            f"cannot set min encryption/decryption values; min encryption version of {encryption} must be greater than "
            f"or equal to min decryption version of {decryption}"
        )
    if record.min_available > 0:
        if encryption < record.min_available:
            raise InvalidInputError("min encryption version should not be less than min available version")
        if decryption < record.min_available:
            raise InvalidInputError("min decryption version should not be less then min available version")
    period = record.auto_rotate_s if changes.auto_rotate_s is None else changes.auto_rotate_s
    require_period(period)
    allowed = record.deletion_allowed if changes.deletion_allowed is None else changes.deletion_allowed
    return replace(
        record,
        min_decryption=decryption,
        min_encryption=encryption,
        deletion_allowed=allowed,
        exportable=record.exportable or bool(changes.exportable),
        allow_plaintext_backup=record.allow_plaintext_backup or bool(changes.allow_plaintext_backup),
        auto_rotate_s=period,
    )


def _require_trimmable(record: TransitKeyRecord, min_available: int) -> None:
    if min_available < record.min_available:
        raise InvalidInputError("minimum available version cannot be decremented")
    if record.min_encryption == 0:
        raise InvalidInputError("minimum available version cannot be set when minimum encryption version is not set")
    if min_available < 1:
        raise InvalidInputError("minimum available version should be positive")
    if min_available > record.min_encryption:
        raise InvalidInputError("minimum available version cannot be greater than minmum encryption version")
    if min_available > record.min_decryption:
        raise InvalidInputError("minimum available version cannot be greater than minimum decryption version")
