"""Key pairs of devices: handed out, replaced, and opened for whoever they belong to."""

from __future__ import annotations

import logging
import math
from collections import OrderedDict
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from keystead.crypto.envelope import parse_header
from keystead.crypto.keyring import Keyring
from keystead.devices.halves import Half, give_half, open_half, seal_half
from keystead.devices.names import checked_key_id, checked_name, new_key_id
from keystead.devices.pairs import OpenKey, Pair, public_pem
from keystead.devices.surroundings import Principal, Surroundings
from keystead.errors import (
    ConflictError,
    DataKeyNotLoadedError,
    DecryptionError,
    ForbiddenError,
    KeyExpiredError,
    KeyNotFoundError,
    KMSError,
    RateLimitedError,
)
from keystead.model import WRAP_KEYRING, utc_text
from keystead.ports import AuditEvent, ClientKeyRecord, DeviceRecord, PairKind, ReadyPairRecord, UnitOfWork
from keystead.runtime.off_loop import in_thread

log = logging.getLogger("keystead.devices")

KEPT_OPEN: Final = 1024
"""Private halves that are kept parsed."""
BATCH: Final = 500
ATTEMPTS: Final = 16


@dataclass(frozen=True, slots=True)
class Upkeep:
    """What an upkeep has done: pairs that are handed out no more, halves erased, ids forgotten."""

    deprecated: int = 0
    erased: int = 0
    dropped: int = 0


class ClientKeys:
    """Gives each device its key pair, and opens what was encrypted to it."""

    def __init__(self, surroundings: Surroundings) -> None:
        self._s = surroundings
        self._open: OrderedDict[str, tuple[bytes, OpenKey]] = OrderedDict()

    async def generate(
        self, who: Principal, device_id: str, *, app_version: str | None = None, kind: PairKind | None = None
    ) -> ClientKeyRecord:
        """Return the key pair that a device is to encrypt to, made if it has none that has not expired.

        The first who uses a device owns it.

        Raises:
            InvalidInputError: an id or version that cannot be one.
            ForbiddenError: the device is somebody else's, or was revoked.
            RateLimitedError: a new pair is needed, and the device was given as many as it gets.
        """
        return await self._issue(who, device_id, app_version, kind, replaces=False)

    async def rotate(
        self, who: Principal, device_id: str, *, app_version: str | None = None, kind: PairKind | None = None
    ) -> ClientKeyRecord:
        """Give a device a new key pair, and hand its others out no more; they decrypt until they expire.

        Raises:
            KMSError: as ``generate``.
        """
        return await self._issue(who, device_id, app_version, kind, replaces=True)

    async def open(self, who: Principal, key_id: str) -> tuple[ClientKeyRecord, OpenKey]:
        """Return a key pair and its private half, ready to decrypt.

        Raises:
            KeyNotFoundError: there is none of that id, or it is somebody else's.
            KeyExpiredError: it has expired, and the grace is over.
        """
        checked_key_id(key_id)
        async with self._s.store.reading() as work:
            key = await work.find_client_key(key_id)
        if key is None or (key.tenant, key.owner) != (who.tenant, who.user):
            raise KeyNotFoundError("Encryption key not found")
        over = None if key.expires_at is None else key.expires_at + self._s.policy.decrypt_grace
        if key.wrapped_private_key is None or (over is not None and over <= self._s.clock.now()):
            self._open.pop(key_id, None)
            raise KeyExpiredError("Encryption key has expired")
        return key, await self._opened(key, key.wrapped_private_key)

    async def fill(self, kind: PairKind, wanted: int) -> int:
        """Make pairs until so many of a kind are ready; return how many were made."""
        made = 0
        while True:
            async with self._s.store.reading() as work:
                if await work.count_ready_pairs(kind) >= wanted:
                    return made
            pair = await in_thread(self._s.make_pair, kind)
            now = self._s.clock.now()
            half = self._half(new_key_id(now, self._s.random), None, kind, utc_text(now))
            ring = await self._s.wraps.sealing_ring(WRAP_KEYRING)
            sealed = seal_half(ring, half, pair)
            wrapped_by = parse_header(sealed).key_id
            ready = ReadyPairRecord(half.key_id, kind, public_pem(pair.public), sealed, wrapped_by, half.created)
            async with self._s.store.transaction() as work:
                await self._s.wraps.hold_wrap_key(work, wrapped_by)
                await work.add_ready_pair(ready)
            made += 1

    async def upkeep(self) -> Upkeep:
        """Hand out no more what has expired, erase private halves whose grace is over, and forget old ids."""
        policy, now = self._s.policy, self._s.clock.now()
        done = {"deprecated": 0, "erased": 0, "dropped": 0}
        while True:
            async with self._s.store.transaction() as work:
                step = {
                    "deprecated": await work.deprecate_expired_client_keys(now, limit=BATCH),
                    "erased": await work.erase_client_keys(now - policy.decrypt_grace, limit=BATCH),
                    "dropped": await work.drop_client_keys(now - policy.retention, limit=BATCH),
                }
                if not any(step.values()):
                    return Upkeep(**done)
                await self._s.audit.record(work, AuditEvent("client_key.upkeep", details=step))
            done = {name: done[name] + step[name] for name in done}

    async def _issue(
        self, who: Principal, device_id: str, app_version: str | None, kind: PairKind | None, *, replaces: bool
    ) -> ClientKeyRecord:
        device_id = checked_name(device_id, "deviceId")
        app_version = None if app_version is None else checked_name(app_version, "appVersion")
        kind = kind or self._s.policy.kind
        asked = _Asked(who, device_id, app_version, kind, replaces)
        async with self._s.store.reading() as work:
            device = await work.find_device(who.tenant, device_id)
            found = None if device is None else await self._found(work, device, asked)
        if found is not None:
            return found
        made: Pair | None = None
        lost: set[int] = set()
        for _ in range(ATTEMPTS):
            ring = await self._s.wraps.sealing_ring(WRAP_KEYRING)
            try:
                async with self._s.store.transaction() as work:
                    issued = await self._issued(work, ring, asked, made, lost)
            except ConflictError as exc:
                failure: KMSError = exc
            except DataKeyNotLoadedError as exc:
                failure = exc
                if not await self._s.wraps.load_wrap_key(WRAP_KEYRING, exc.data_key_id):
                    lost.add(exc.data_key_id)
            else:
                if issued is not None:
                    return issued
                made = await in_thread(self._s.make_pair, kind)
        raise failure

    async def _found(self, work: UnitOfWork, device: DeviceRecord, asked: _Asked) -> ClientKeyRecord | None:
        """Return the pair that a device has; None where it gets a new one, which it may.

        Raises:
            KMSError: as ``generate``.
        """
        if device.owner not in (None, asked.who.user) or device.revoked_at is not None:
            raise ForbiddenError("this device is somebody else's, or was revoked")
        now, policy = self._s.clock.now(), self._s.policy
        if not asked.replaces:
            found = await work.find_active_client_key(device.tenant, device.device_id, asked.kind, after=now)
            if found is not None and found.owner == asked.who.user:
                return found
        since = utc_text(now - policy.window)
        times = await work.client_key_times(device.tenant, device.device_id, since=since, limit=policy.max_new)
        if len(times) >= policy.max_new:
            wait = datetime.fromisoformat(times[-1]) + policy.window - now
            minutes = math.ceil(wait.total_seconds() / 60)
            raise RateLimitedError(
                f"Rate limit for key generation exceeded. Try again in {minutes} minutes",
                retry_after_s=wait.total_seconds(),
            )
        return None

    async def _issued(
        self, work: UnitOfWork, ring: Keyring, asked: _Asked, made: Pair | None, lost: Collection[int]
    ) -> ClientKeyRecord | None:
        """Return the pair of a device, or a new one: ``made``, or one that is ready; None where there is neither.

        A pair that was ready and does not open is gone then. ``lost`` are WRAP keys that the store does not have.
        """
        who, now = asked.who, self._s.clock.now()
        device = await work.hold_device(DeviceRecord(who.tenant, asked.device_id, who.user, now))
        if (found := await self._found(work, device, asked)) is not None:
            return found
        if device.owner is None:
            await work.change_device(who.tenant, asked.device_id, owner=who.user, revoked_at=None)
        ready = None if made is not None else await work.take_ready_pair(asked.kind)
        if made is None and ready is None:
            return None
        key_id, created = new_key_id(now, self._s.random), utc_text(now)
        half = self._half(key_id, asked.device_id, asked.kind, created)
        if ready is not None:
            before = self._half(ready.id, None, ready.kind, ready.created_at)
            try:
                public, sealed = ready.public_key, give_half(ring, before, ready.wrapped_private_key, half)
            except DecryptionError as exc:
                if isinstance(exc, DataKeyNotLoadedError) and exc.data_key_id not in lost:
                    raise
                log.warning("a key pair that was ready does not open, and was removed", extra={"pair": ready.id})
                return None
        elif made is not None:
            public, sealed = public_pem(made.public), seal_half(ring, half, made)
        wrapped_by = parse_header(sealed).key_id
        await self._s.wraps.hold_wrap_key(work, wrapped_by)
        key = ClientKeyRecord(
            key_id,
            who.tenant,
            asked.device_id,
            who.user,
            asked.kind,
            public,
            sealed,
            wrapped_by,
            created,
            now + self._s.policy.lifetime,
            asked.app_version,
            updated_at=now,
        )
        await work.deprecate_client_keys(who.tenant, asked.device_id, now, kind=None if asked.replaces else asked.kind)
        action = "client_key.rotate" if asked.replaces else "client_key.create"
        details = {"client_key": key_id, "device": asked.device_id, "tenant": who.tenant, "kind": asked.kind.value}
        await self._s.audit.record(work, AuditEvent(action, details=details))
        await work.add_client_key(key)
        return key

    async def _opened(self, key: ClientKeyRecord, sealed: bytes) -> OpenKey:
        known = self._open.get(key.id)
        if known is not None and known[0] == sealed:
            self._open.move_to_end(key.id)
            return known[1]
        ring = await self._s.wraps.wrap_ring(WRAP_KEYRING)
        half = self._half(key.id, key.device_id, key.kind, key.created_at)
        await self._s.wraps.load_wrap_key(WRAP_KEYRING, parse_header(sealed).key_id)
        opened = open_half(ring, half, sealed)
        self._open[key.id] = sealed, opened
        if len(self._open) > KEPT_OPEN:
            self._open.popitem(last=False)
        return opened

    def _half(self, key_id: str, device_id: str | None, kind: PairKind, created: str) -> Half:
        return Half(self._s.wraps.store_id, key_id, device_id, kind, created)


@dataclass(frozen=True, slots=True)
class _Asked:
    """What was asked for."""

    who: Principal
    device_id: str
    app_version: str | None
    kind: PairKind
    replaces: bool
