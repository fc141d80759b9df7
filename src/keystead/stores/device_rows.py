"""Devices, their key pairs and pairs that are ready, as rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from datetime import datetime
from hashlib import blake2b
from typing import Any, Final

from sqlalchemy import ColumnElement, Table, and_, bindparam, delete, exists, func, or_, select, update

from keystead.ports import ClientKeyRecord, DeviceRecord, PairKind, ReadyPairRecord
from keystead.stores.keys import KeyReadRows
from keystead.stores.prepared import Prepared
from keystead.stores.records import as_record
from keystead.stores.tables import client_devices, client_encryption_keys, ready_key_pairs, spent_ciphertexts

_keys: Final = client_encryption_keys
_spent: Final = spent_ciphertexts
_ERASED: Final = {"wrapped_private_key": None, "wrapped_by": None}
_SPENT: Final = select(_spent.c.key_id).where(_spent.c.key_id == _keys.c.id, _spent.c.digest == bindparam("of_digest"))
_FOR_CIPHERTEXT: Final = Prepared(
    select(_keys, exists(_SPENT).label("is_spent")).where(_keys.c.id == bindparam("of_id"))
)


class DeviceRows(KeyReadRows):
    """Devices; ``keystead.ports.DeviceRows``."""

    async def find_device(self, tenant: str, device_id: str, *, lock: bool = False) -> DeviceRecord | None:
        """Return a device; with ``lock`` nobody else changes it before the transaction ends."""
        query = select(client_devices).where(_is_device(client_devices, tenant, device_id))
        if lock:
            self._require_writing()
        row = await self._first(query.with_for_update() if lock else query)
        return None if row is None else as_record(DeviceRecord, client_devices, row)

    async def hold_device(self, device: DeviceRecord) -> DeviceRecord:
        """Insert a device unless it is there, and return it as it is.

        Nobody else changes it, or takes a key for it, before the transaction ends.
        """
        await self._write(self._insert(client_devices).values(asdict(device)).on_conflict_do_nothing())
        row = await self._first(
            select(client_devices).where(_is_device(client_devices, device.tenant, device.device_id)).with_for_update()
        )
        return device if row is None else as_record(DeviceRecord, client_devices, row)

    async def change_device(
        self, tenant: str, device_id: str, *, owner: str | None, revoked_at: datetime | None
    ) -> bool:
        """Say whose a device is, and when it was revoked; False when absent."""
        change = update(client_devices).where(_is_device(client_devices, tenant, device_id))
        return bool(await self._count(change.values(owner=owner, revoked_at=revoked_at)))

    async def devices(
        self, tenant: str, *, owner: str | None = None, after: str = "", limit: int | None = None
    ) -> list[DeviceRecord]:
        """Return the devices of a tenant, or of a user of it, by id; those ``after`` an id."""
        is_its = client_devices.c.tenant == tenant if owner is None else _is_owned(tenant, owner)
        query = select(client_devices).where(is_its, client_devices.c.device_id > after)
        query = query.order_by(client_devices.c.device_id)
        rows = await self._all(query if limit is None else query.limit(limit))
        return [as_record(DeviceRecord, client_devices, row) for row in rows]

    async def hold_user(self, tenant: str, user: str) -> None:
        """Wait until nobody else holds a user; nobody else does before the transaction ends."""
        self._require_writing()
        if self._connection.dialect.name == "postgresql":
            # Of SQLite there is one writer. Two users with one number wait for each other, and that is all.
            name = b"keystead user\x00" + tenant.encode() + b"\x00" + user.encode()
            number = int.from_bytes(blake2b(name, digest_size=8).digest(), "big", signed=True)
            await self._execute(select(func.pg_advisory_xact_lock(number)))

    async def drop_owner_devices(self, tenant: str, owner: str) -> int:
        """Forget whose the devices of a user are; return how many.

        A device that others have pairs of stays, and belongs to the next who uses it; the rest is removed.
        """
        of_device = and_(_keys.c.tenant == client_devices.c.tenant, _keys.c.device_id == client_devices.c.device_id)
        unused = ~exists(select(_keys.c.id).where(of_device))
        dropped = await self._count(delete(client_devices).where(_is_owned(tenant, owner), unused))
        return dropped + await self._count(update(client_devices).where(_is_owned(tenant, owner)).values(owner=None))


class ClientKeyRows(KeyReadRows):
    """Key pairs of devices, and those that are ready; ``keystead.ports.ClientKeyRows``."""

    async def find_client_key(self, key_id: str) -> ClientKeyRecord | None:
        """Return a key pair by its id."""
        row = await self._first(select(_keys).where(_keys.c.id == key_id))
        return None if row is None else as_record(ClientKeyRecord, _keys, row)

    async def find_client_key_for(self, key_id: str, digest: bytes) -> tuple[ClientKeyRecord, bool] | None:
        """Return a key pair, and whether a ciphertext to it, by its SHA-256, has succeeded."""
        for row in await self._run(_FOR_CIPHERTEXT, {"of_id": key_id, "of_digest": digest}, writes=False):
            is_spent = bool(row.pop("is_spent"))
            return as_record(ClientKeyRecord, _keys, row), is_spent
        return None

    async def find_active_client_key(
        self, tenant: str, device_id: str, kind: PairKind, *, after: datetime
    ) -> ClientKeyRecord | None:
        """Return the pair of a kind that a device is given: not deprecated, and not expired ``after`` a time."""
        row = await self._first(
            select(_keys).where(
                _is_device(_keys, tenant, device_id),
                _keys.c.kind == kind.value,
                _keys.c.deprecated.is_(False),
                or_(_keys.c.expires_at.is_(None), _keys.c.expires_at > after),
            )
        )
        return None if row is None else as_record(ClientKeyRecord, _keys, row)

    async def client_keys(self, tenant: str, device_id: str) -> list[ClientKeyRecord]:
        """Return the pairs of a device, the newest first."""
        query = select(_keys).where(_is_device(_keys, tenant, device_id))
        rows = await self._all(query.order_by(_keys.c.created_at.desc(), _keys.c.id.desc()))
        return [as_record(ClientKeyRecord, _keys, row) for row in rows]

    async def add_client_key(self, key: ClientKeyRecord) -> None:
        """Insert a pair; ``ConflictError`` when its id is taken, or the device has one of the kind already."""
        await self._write(self._insert(_keys).values({**asdict(key), "kind": key.kind.value}))

    async def deprecate_client_keys(
        self, tenant: str, device_id: str, at: datetime, *, kind: PairKind | None = None
    ) -> int:
        """Hand a device's pairs out no more, those of a kind or all; return how many were."""
        change = update(_keys).where(_is_device(_keys, tenant, device_id), _keys.c.deprecated.is_(False))
        if kind is not None:
            change = change.where(_keys.c.kind == kind.value)
        return await self._count(change.values(deprecated=True, updated_at=at))

    async def client_key_made_at(
        self, nth: int, *, since: str, tenant: str | None = None, device_id: str | None = None, owner: str | None = None
    ) -> str | None:
        """Return when the ``nth`` newest pair was made of those since a time; None where there are not so many.

        Args:
            tenant: with it, of a device's pairs or of an owner's; without, of all.
        """
        query = select(_keys.c.created_at).where(_keys.c.created_at > since)
        for column, value in ((_keys.c.tenant, tenant), (_keys.c.device_id, device_id), (_keys.c.owner, owner)):
            if value is not None:
                query = query.where(column == value)
        row = await self._first(query.order_by(_keys.c.created_at.desc()).offset(nth - 1).limit(1))
        return None if row is None else str(row["created_at"])

    async def note_client_key_uses(self, uses: Mapping[str, int], at: datetime) -> None:
        """Add to the use counts of pairs; one that is gone is passed over."""
        # By id, so that two who note the same do not wait for each other in a circle.
        rows = [{"of": key_id, "more": uses[key_id]} for key_id in sorted(uses)]
        if not rows:
            return
        more: ColumnElement[Any] = _keys.c.usage_count + bindparam("more")
        noted = update(_keys).where(_keys.c.id == bindparam("of")).values(usage_count=more, last_used=at)
        await self._write_many(noted, rows)

    async def deprecate_expired_client_keys(self, now: datetime, *, limit: int) -> int:
        """Hand out no more what has expired; return how many pairs that were, ``limit`` at most."""
        due = select(_keys.c.id).where(_keys.c.deprecated.is_(False), _keys.c.expires_at <= now).limit(limit)
        return await self._count(update(_keys).where(_keys.c.id.in_(due)).values(deprecated=True, updated_at=now))

    async def erase_client_keys(self, expired_before: datetime, *, limit: int) -> int:
        """Erase the private halves of what has expired before a time; return how many, ``limit`` at most."""
        due = select(_keys.c.id).where(_keys.c.wrapped_private_key.is_not(None), _keys.c.expires_at <= expired_before)
        return await self._count(update(_keys).where(_keys.c.id.in_(due.limit(limit))).values(_ERASED))

    async def drop_client_keys(self, expired_before: datetime, *, limit: int) -> int:
        """Remove what has expired before a time, tombstones and all; return how many, ``limit`` at most."""
        due = select(_keys.c.id).where(_keys.c.expires_at <= expired_before).limit(limit)
        return await self._count(delete(_keys).where(_keys.c.id.in_(due)))

    async def erase_device_keys(self, tenant: str, device_id: str, at: datetime) -> list[str]:
        """Hand a device's pairs out no more and erase their private halves; return the ids of all."""
        self._require_writing()
        change = update(_keys).where(_is_device(_keys, tenant, device_id))
        erased = change.values(deprecated=True, updated_at=at, **_ERASED).returning(_keys.c.id)
        return [str(key_id) for (key_id,) in await self._tuples(erased)]

    async def drop_owner_keys(self, tenant: str, owner: str) -> list[str]:
        """Remove the pairs that were given to a user; return their ids."""
        self._require_writing()
        dropped = delete(_keys).where(_keys.c.tenant == tenant, _keys.c.owner == owner).returning(_keys.c.id)
        return [str(key_id) for (key_id,) in await self._tuples(dropped)]

    async def client_keys_under(self, wrapped_by: int, *, after: str, limit: int) -> list[ClientKeyRecord]:
        """Return pairs of devices whose private halves a WRAP key wraps, by id, those after ``after``."""
        query = select(_keys).where(_keys.c.wrapped_by == wrapped_by, _keys.c.id > after)
        rows = await self._all(query.order_by(_keys.c.id).limit(limit))
        return [as_record(ClientKeyRecord, _keys, row) for row in rows]

    async def rewrap_client_key(self, key_id: str, before: bytes, sealed: bytes, wrapped_by: int) -> bool:
        """Replace a private half by itself under another WRAP key; False if it is not ``before`` any more."""
        same = update(_keys).where(_keys.c.id == key_id, _keys.c.wrapped_private_key == before)
        return bool(await self._count(same.values(wrapped_private_key=sealed, wrapped_by=wrapped_by)))

    async def add_ready_pair(self, pair: ReadyPairRecord) -> None:
        """Insert a pair that is ready."""
        await self._write(self._insert(ready_key_pairs).values({**asdict(pair), "kind": pair.kind.value}))

    async def take_ready_pair(self, kind: PairKind) -> ReadyPairRecord | None:
        """Remove the oldest ready pair of a kind that nobody else is taking, and return it."""
        self._require_writing()
        of_kind = select(ready_key_pairs.c.id).where(ready_key_pairs.c.kind == kind.value)
        oldest = of_kind.order_by(ready_key_pairs.c.created_at, ready_key_pairs.c.id).limit(1)
        found = await self._first(oldest.with_for_update(skip_locked=True))
        if found is None:
            return None
        taken = delete(ready_key_pairs).where(ready_key_pairs.c.id == found["id"])
        row = await self._write(taken.returning(ready_key_pairs))
        return None if row is None else as_record(ReadyPairRecord, ready_key_pairs, row)

    async def drop_ready_pairs(self, wrapped_by: int) -> int:
        """Remove the ready pairs that a WRAP key wraps; return how many."""
        return await self._count(delete(ready_key_pairs).where(ready_key_pairs.c.wrapped_by == wrapped_by))

    async def count_ready_pairs(self, kind: PairKind) -> int:
        """Return how many pairs of a kind are ready."""
        return await self._number(ready_key_pairs, ready_key_pairs.c.kind == kind.value)

    async def count_private_halves(self, wrapped_by: int) -> int:
        """Return how many private halves a WRAP key wraps, of devices and ready ones."""
        tables = (_keys, ready_key_pairs)
        return sum([await self._number(table, table.c.wrapped_by == wrapped_by) for table in tables])


def _is_owned(tenant: str, owner: str) -> ColumnElement[bool]:
    return and_(client_devices.c.tenant == tenant, client_devices.c.owner == owner)


def _is_device(table: Table, tenant: str, device_id: str) -> ColumnElement[bool]:
    return and_(table.c.tenant == tenant, table.c.device_id == device_id)
