"""Whose a device is, and what goes when it is revoked or its user forgotten."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from keystead.devices.names import checked_name
from keystead.devices.surroundings import Surroundings
from keystead.errors import ForbiddenError, KeyNotFoundError
from keystead.model import Act, Action, Principal
from keystead.ports import AuditEvent, ClientKeyRecord, Detail, DeviceRecord, UnitOfWork

LISTED: Final = 1000
"""Key pairs that are listed at once. A device that is given five a day, as settings have it, comes to 600."""


@dataclass(frozen=True, slots=True)
class Forgotten:
    """How much of a user was removed."""

    devices: int
    client_keys: int
    secrets: int


class Owners:
    """Devices as their owners and administrators see them. ``is_admin``: of whoever's device it is, in the tenant."""

    def __init__(self, surroundings: Surroundings) -> None:
        self._s = surroundings

    async def devices(self, who: Principal) -> list[DeviceRecord]:
        """Return the devices of a user, by id."""
        async with self._s.store.reading() as work:
            return await work.devices(who.tenant, owner=who.user)

    async def all(
        self, who: Principal, *, owner: str | None = None, after: str = "", limit: int = 1000
    ) -> list[DeviceRecord]:
        """Return devices of the caller's tenant, or of one user of it, by id, for who administers them."""
        async with self._s.store.reading() as work:
            return await work.devices(who.tenant, owner=owner, after=after, limit=limit)

    async def get(self, who: Principal, device_id: str) -> DeviceRecord:
        """Return a device of the caller's tenant, for who administers it; errors as ``release``."""
        async with self._s.store.reading() as work:
            return await self._device(work, who, device_id, is_admin=True, lock=False)

    async def client_keys(
        self, who: Principal, device_id: str, *, is_admin: bool = False, after: str | None = None, limit: int = LISTED
    ) -> list[ClientKeyRecord]:
        """Return key pairs of a device, the newest first; errors as ``revoke``.

        Args:
            after: the id of the last one that is known already.

        Raises:
            KeyNotFoundError: the device has no such key pair.
        """
        async with self._s.store.reading() as work:
            device = await self._device(work, who, device_id, is_admin=is_admin, lock=False)
            known = None if after is None else await self._pair(work, device, after)
            place = None if known is None else (known.created_at, known.id)
            return await work.client_keys(device.tenant, device.device_id, after=place, limit=limit)

    async def revoke(self, who: Principal, device_id: str, *, is_admin: bool = False) -> None:
        """Erase the private halves of a device, which gets no other pair until it is released.

        One that was revoked is so since then.

        Raises:
            KeyNotFoundError: there is no such device.
            ForbiddenError: it is somebody else's.
        """
        async with self._s.store.transaction() as work:
            device = await self._device(work, who, device_id, is_admin=is_admin)
            now = self._s.clock.now()
            since = device.revoked_at or now
            await work.change_device(device.tenant, device.device_id, owner=device.owner, revoked_at=since)
            key_ids = await work.erase_device_keys(device.tenant, device.device_id, now)
            await work.drop_spent_of(key_ids)
            await self._record(work, "device.revoke", who, device, client_keys=len(key_ids))

    async def release(self, who: Principal, device_id: str) -> None:
        """Let a device belong to the next who uses it, revoked or not; what its last owner was given is erased.

        Raises:
            KeyNotFoundError: there is no such device.
        """
        async with self._s.store.transaction() as work:
            device = await self._device(work, who, device_id, is_admin=True)
            key_ids = await work.erase_device_keys(device.tenant, device.device_id, self._s.clock.now())
            await work.drop_spent_of(key_ids)
            await work.change_device(device.tenant, device.device_id, owner=None, revoked_at=None)
            await self._record(work, "device.release", who, device, client_keys=len(key_ids))

    async def forget(self, who: Principal, user: str) -> Forgotten:
        """Remove a user of the caller's tenant: devices, key pairs, secrets. The audit trail keeps what it has."""
        act = Act(Action.USER_FORGET, user, tenant=who.tenant)
        async with self._s.consent.given(act), self._s.store.transaction() as work:
            await work.hold_user(who.tenant, user)
            key_ids = await work.drop_owner_keys(who.tenant, user)
            await work.drop_spent_of(key_ids)
            forgotten = Forgotten(
                devices=await work.drop_owner_devices(who.tenant, user),
                client_keys=len(key_ids),
                secrets=await work.drop_credentials(who.tenant, user),
            )
            details: dict[str, Detail] = {"forgotten": user, "client_keys": forgotten.client_keys, **who.details()}
            await self._s.audit.record(work, AuditEvent("user.forget", details=details))
        return forgotten

    async def _device(
        self, work: UnitOfWork, who: Principal, device_id: str, *, is_admin: bool, lock: bool = True
    ) -> DeviceRecord:
        device = await work.find_device(who.tenant, checked_name(device_id, "deviceId"), lock=lock)
        if device is None:
            raise KeyNotFoundError("no device of this id")
        if device.owner != who.user and not is_admin:
            raise ForbiddenError("this device is somebody else's")
        return device

    async def _pair(self, work: UnitOfWork, device: DeviceRecord, key_id: str) -> ClientKeyRecord:
        found = await work.find_client_key(checked_name(key_id, "after"))
        if found is None or (found.tenant, found.device_id) != (device.tenant, device.device_id):
            raise KeyNotFoundError("no key pair of this id is the device's any more; list them from the beginning")
        return found

    async def _record(
        self, work: UnitOfWork, action: str, who: Principal, device: DeviceRecord, *, client_keys: int
    ) -> None:
        details: dict[str, Detail] = {"device": device.device_id, "client_keys": client_keys, **who.details()}
        await self._s.audit.record(work, AuditEvent(action, details=details))
