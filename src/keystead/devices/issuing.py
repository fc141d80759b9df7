"""New key pairs of devices: whether one may be made, and the one transaction in which a device gets it."""

from __future__ import annotations

import asyncio
import logging
import math
import os
from collections.abc import Collection
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

from keystead import telemetry
from keystead.crypto.envelope import parse_header
from keystead.crypto.keyring import Keyring
from keystead.devices.halves import give_half, seal_half
from keystead.devices.names import new_key_id
from keystead.devices.pairs import Pair, public_pem
from keystead.devices.surroundings import Surroundings
from keystead.errors import (
    ConflictError,
    DataKeyNotLoadedError,
    DecryptionError,
    ForbiddenError,
    KMSError,
    RateLimitedError,
)
from keystead.model import WRAP_KEYRING, Principal, utc_text
from keystead.ports import AuditEvent, ClientKeyRecord, DeviceRecord, Newest, PairKind, Standing, UnitOfWork
from keystead.runtime.off_loop import in_thread

log = logging.getLogger("keystead.devices")

ATTEMPTS: Final = 16
MOST_WAITING: Final = 64
"""Requests that may wait until a pair is made for them; each takes a processor for some hundred milliseconds."""
BUSY_S: Final = 5.0


@dataclass(frozen=True, slots=True)
class Asked:
    """What was asked for; ``replaces`` a new pair in any case, otherwise only where the device has none."""

    who: Principal
    device_id: str
    app_version: str | None
    kind: PairKind
    replaces: bool


@dataclass(frozen=True, slots=True)
class _Issued:
    """The pair that a device has now, and whether it had it before."""

    key: ClientKeyRecord
    is_new: bool


class Issuing:
    """Gives devices new pairs: one that is ready, or else one that is made."""

    def __init__(self, surroundings: Surroundings) -> None:
        self._s = surroundings
        self._makers = asyncio.Semaphore(os.cpu_count() or 1)
        self._waiting = 0

    async def issue(self, asked: Asked) -> ClientKeyRecord:
        """Return the pair that a device has, or a new one.

        Raises:
            ForbiddenError: the device is somebody else's, or was revoked.
            RateLimitedError: too many were made for the device, for its owner, or in all.
        """
        async with self._s.store.reading(once=True) as work:
            standing = await self._standing(work, asked)
        if standing.given is not None:
            telemetry.client_key_given(is_new=False)
            return standing.given
        made: Pair | None = None
        lost: set[int] = set()
        for _ in range(ATTEMPTS):
            ring = await self._s.rings.sealing_ring(WRAP_KEYRING)
            try:
                async with self._s.store.transaction() as work:
                    issued = await self._issued(work, ring, asked, made, lost)
            except ConflictError as exc:
                failure: KMSError = exc
            except DataKeyNotLoadedError as exc:
                failure = exc
                if not await self._s.rings.load_wrap_key(WRAP_KEYRING, exc.data_key_id):
                    lost.add(exc.data_key_id)
            else:
                if issued is not None:
                    telemetry.client_key_given(is_new=issued.is_new)
                    return issued.key
                made = await self._make(asked.kind)
        raise failure

    async def _make(self, kind: PairKind) -> Pair:
        if self._waiting >= MOST_WAITING:
            raise RateLimitedError(
                "too many key pairs are being made; try again in a few seconds", retry_after_s=BUSY_S
            )
        self._waiting += 1
        try:
            async with self._makers:
                with telemetry.span("keystead.make_pair", {"keystead.kind": kind.value}):
                    return await in_thread(self._s.make_pair, kind)
        finally:
            self._waiting -= 1

    async def _standing(self, work: UnitOfWork, asked: Asked) -> Standing:
        """Return how a device stands: with the pair that it is given, or without one, and then it may get one.

        Raises:
            KMSError: as ``issue``.
        """
        who, policy, now = asked.who, self._s.policy, self._s.clock.now()
        budgets = (
            (policy.max_new, policy.window),
            (policy.max_new_of_user, policy.window),
            (policy.max_new_in_all, policy.window_in_all),
        )
        of_device, of_owner, in_all = (Newest(most, utc_text(now - window)) for most, window in budgets)
        standing = await work.find_standing(
            (who.tenant, asked.device_id),
            who.user,
            asked.kind,
            after=now,
            of_device=of_device,
            of_owner=of_owner,
            in_all=in_all,
        )
        device, given = standing.device, standing.given
        if device is not None:
            if device.owner not in (None, who.user) or device.revoked_at is not None:
                raise ForbiddenError("this device is somebody else's, or was revoked")
            if given is not None and given.owner == who.user and not asked.replaces:
                return standing
        for made_at, (_, window) in zip(standing.made_at, budgets, strict=True):
            if made_at is None:
                continue
            wait_s = (datetime.fromisoformat(made_at) + window - now).total_seconds()
            raise RateLimitedError(
                f"Rate limit for key generation exceeded. Try again in {math.ceil(wait_s / 60)} minutes",
                retry_after_s=wait_s,
            )
        return replace(standing, given=None)

    async def _issued(
        self, work: UnitOfWork, ring: Keyring, asked: Asked, made: Pair | None, lost: Collection[int]
    ) -> _Issued | None:
        """Return the pair of a device, or a new one: ``made``, or one that is ready; None where there is neither.

        A pair that was ready and does not open is gone then. ``lost`` are WRAP keys that the store does not have.
        """
        who, now = asked.who, self._s.clock.now()
        device = await work.hold_device(DeviceRecord(who.tenant, asked.device_id, who.user, now))
        standing = await self._standing(work, asked)
        if standing.given is not None:
            return _Issued(standing.given, is_new=False)
        if device.owner is None:
            await work.change_device(who.tenant, asked.device_id, owner=who.user, revoked_at=None)
        ready = None if made is not None else await work.take_ready_pair(asked.kind)
        if made is not None:
            public = public_pem(made.public)
        elif ready is not None:
            public = ready.public_key
        else:
            return None
        key_id, created = new_key_id(now, self._s.random), utc_text(now)
        key = ClientKeyRecord(
            key_id,
            who.tenant,
            asked.device_id,
            who.user,
            asked.kind,
            public,
            None,
            None,
            created,
            now + self._s.policy.lifetime,
            asked.app_version,
            updated_at=now,
        )
        if ready is not None:
            try:
                sealed = give_half(ring, self._s.half(ready), ready.wrapped_private_key, self._s.half(key))
            except DecryptionError as exc:
                if isinstance(exc, DataKeyNotLoadedError) and exc.data_key_id not in lost:
                    raise
                log.warning("a key pair that was ready does not open, and was removed", extra={"pair": ready.id})
                return None
        elif made is not None:
            sealed = seal_half(ring, self._s.half(key), made)
        wrapped_by = parse_header(sealed).key_id
        await self._s.rings.hold_wrap_key(work, wrapped_by)
        key = replace(key, wrapped_private_key=sealed, wrapped_by=wrapped_by)
        if standing.has_pairs:
            kind = None if asked.replaces else asked.kind
            await work.deprecate_client_keys(who.tenant, asked.device_id, now, kind=kind)
        action = "client_key.rotate" if asked.replaces else "client_key.create"
        details = {"client_key": key_id, "device": asked.device_id, "kind": asked.kind.value, **who.details()}
        await self._s.audit.record(work, AuditEvent(action, details=details))
        await work.add_client_key(key)
        return _Issued(key, is_new=True)
