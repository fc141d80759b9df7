"""Devices, their key pairs and pairs that are ready, as rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from datetime import datetime
from hashlib import blake2b
from typing import Any, Final, cast

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Delete,
    FromClause,
    Insert,
    Integer,
    Select,
    Table,
    Update,
    and_,
    bindparam,
    delete,
    exists,
    func,
    literal,
    or_,
    select,
    true,
    tuple_,
    update,
)

from keystead.ports import ClientKeyRecord, DeviceRecord, Newest, PairKind, ReadyPairRecord, Standing
from keystead.stores.keys import KeyReadRows
from keystead.stores.prepared import Prepared
from keystead.stores.records import as_record
from keystead.stores.tables import client_devices, client_encryption_keys, ready_key_pairs, spent_ciphertexts
from keystead.stores.transaction import insert_into

_keys: Final = client_encryption_keys
_spent: Final = spent_ciphertexts
_ERASED: Final = {"wrapped_private_key": None, "wrapped_by": None}
_SPENT: Final = select(_spent.c.key_id).where(_spent.c.key_id == _keys.c.id, _spent.c.digest == bindparam("of_digest"))


def _of_device(table: FromClause) -> ColumnElement[bool]:
    return and_(table.c.tenant == bindparam("of_tenant"), table.c.device_id == bindparam("of_device"))


_OF_DEVICE: Final = _of_device(_keys)
_OF_OWNER: Final = and_(_keys.c.tenant == bindparam("of_tenant"), _keys.c.owner == bindparam("of_owner"))
_DEVICE: Final = select(client_devices).where(_of_device(client_devices))
_NUMBER: Final = bindparam("number", type_=BigInteger)
_HOLDING_USER: Final = select(func.pg_advisory_xact_lock(_NUMBER).label("held"))


def _made_at(name: str, of: ColumnElement[bool]) -> ColumnElement[Any]:
    made = select(_keys.c.created_at).where(_keys.c.created_at > bindparam(f"{name}_since"), of)
    newest = made.order_by(_keys.c.created_at.desc()).offset(bindparam(f"{name}_before", type_=Integer)).limit(1)
    return newest.scalar_subquery().label(name)


def _deprecating(of: ColumnElement[bool]) -> Update:
    deprecated = update(_keys).where(of, _keys.c.deprecated.is_(False))
    return deprecated.values(deprecated=literal(True), updated_at=bindparam("at")).returning(_keys.c.id)


def _holding(dialect: str) -> Insert:
    """Insert a device, or lock the row that is there: to set a column to what it is does both. Its user comes first."""
    insert, columns = insert_into(client_devices, dialect), list(client_devices.columns)
    if dialect == "postgresql":
        held = _HOLDING_USER.cte("held").prefix_with("MATERIALIZED")
        values = select(*(bindparam(column.name, type_=column.type) for column in columns)).select_from(held)
        insert = insert.from_select([column.name for column in columns], values)
    held_row = insert.on_conflict_do_update(
        index_elements=list(client_devices.primary_key), set_={"owner": client_devices.c.owner}
    )
    return held_row.returning(client_devices)


def _standing() -> Select[Any]:
    one, given = select(literal(1).label("one")).subquery("one"), _keys.alias("given")
    is_given = and_(
        _of_device(given),
        given.c.kind == bindparam("of_kind"),
        given.c.deprecated.is_(False),
        or_(given.c.expires_at.is_(None), given.c.expires_at > bindparam("after")),
    )
    of_device = (each.label(f"{_DEVICE_PREFIX}{each.key}") for each in client_devices.columns)
    has_pairs = exists(select(_keys.c.id).where(_OF_DEVICE, _keys.c.deprecated.is_(False))).label("has_pairs")
    made_at = (_made_at(name, of) for name, of in _MADE.items())
    whole = one.outerjoin(client_devices, _of_device(client_devices)).outerjoin(given, is_given)
    return select(*of_device, *given.columns, has_pairs, *made_at).select_from(whole)


def _taking(dialect: str) -> Delete:
    of_kind = select(ready_key_pairs.c.id).where(ready_key_pairs.c.kind == bindparam("of_kind"))
    oldest = of_kind.order_by(ready_key_pairs.c.created_at, ready_key_pairs.c.id).limit(1)
    found = oldest.with_for_update(skip_locked=True).cte("oldest")
    taken: Any = delete(ready_key_pairs).where(ready_key_pairs.c.id.in_(select(found.c.id)))
    return cast(Delete, taken.returning(ready_key_pairs))


_FOR_CIPHERTEXT: Final = Prepared(
    select(_keys, exists(_SPENT).label("is_spent")).where(_keys.c.id == bindparam("of_id"))
)
_FIND_DEVICE: Final = Prepared(_DEVICE)
_LOCK_DEVICE: Final = Prepared(_DEVICE.with_for_update())
_HOLD_DEVICE: Final = Prepared(_holding)
_HOLD_USER: Final = Prepared(_HOLDING_USER)
_DEVICE_PREFIX: Final = "device_"
_MADE: Final = {"made_of_device": _OF_DEVICE, "made_of_owner": _OF_OWNER, "made_in_all": true()}
_FIND_STANDING: Final = Prepared(_standing())
_ADD_KEY: Final = Prepared(lambda dialect: insert_into(_keys, dialect))
_DEPRECATE: Final = Prepared(_deprecating(_OF_DEVICE))
_DEPRECATE_KIND: Final = Prepared(_deprecating(and_(_OF_DEVICE, _keys.c.kind == bindparam("of_kind"))))
_NOTE_USES: Final = Prepared(
    update(_keys)
    .where(_keys.c.id == bindparam("of_id"))
    .values(usage_count=_keys.c.usage_count + bindparam("more"), last_used=bindparam("at"))
)
_TAKE_READY: Final = Prepared(_taking)


class DeviceRows(KeyReadRows):
    """Devices; ``keystead.ports.DeviceRows``."""

    async def find_device(self, tenant: str, device_id: str, *, lock: bool = False) -> DeviceRecord | None:
        """Return a device; with ``lock`` nobody else changes it before the transaction ends."""
        values = {"of_tenant": tenant, "of_device": device_id}
        rows = await self._run(_LOCK_DEVICE if lock else _FIND_DEVICE, values, writes=lock)
        return as_record(DeviceRecord, client_devices, rows[0]) if rows else None

    async def hold_device(self, device: DeviceRecord) -> DeviceRecord:
        """Hold the user that a device is of, insert it unless it is there, and return it as it is.

        Nobody else changes it, or takes a key for it, before the transaction ends.
        """
        [row] = await self._run(_HOLD_DEVICE, asdict(device) | {"number": _number_of(device.tenant, device.owner)})
        return as_record(DeviceRecord, client_devices, row)

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
            # Of SQLite there is one writer.
            await self._run(_HOLD_USER, {"number": _number_of(tenant, user)})

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

    async def find_standing(
        self,
        device: tuple[str, str],
        owner: str,
        kind: PairKind,
        *,
        after: datetime,
        of_device: Newest,
        of_owner: Newest,
        in_all: Newest,
    ) -> Standing:
        """Return how a device, by tenant and id, stands; its pair is one that expires ``after`` a time."""
        values: dict[str, Any] = {"of_tenant": device[0], "of_device": device[1], "of_owner": owner}
        values |= {"of_kind": kind.value, "after": after}
        for name, newest in zip(_MADE, (of_device, of_owner, in_all), strict=True):
            values |= {f"{name}_since": newest.since, f"{name}_before": newest.number - 1}
        [row] = await self._run(_FIND_STANDING, values, writes=False)
        found = {column.key: row.pop(f"{_DEVICE_PREFIX}{column.key}") for column in client_devices.columns}
        in_device, of_its_owner, of_all = (row.pop(name) for name in _MADE)
        has_pairs = bool(row.pop("has_pairs"))
        return Standing(
            None if found["device_id"] is None else as_record(DeviceRecord, client_devices, found),
            None if row["id"] is None else as_record(ClientKeyRecord, _keys, row),
            has_pairs,
            (in_device, of_its_owner, of_all),
        )

    async def client_keys(
        self, tenant: str, device_id: str, *, after: tuple[str, str] | None = None, limit: int | None = None
    ) -> list[ClientKeyRecord]:
        """Return the pairs of a device, the newest first; those ``after`` a time of making and an id."""
        query = select(_keys).where(_is_device(_keys, tenant, device_id))
        if after is not None:
            query = query.where(tuple_(_keys.c.created_at, _keys.c.id) < tuple_(*after))
        rows = await self._all(query.order_by(_keys.c.created_at.desc(), _keys.c.id.desc()).limit(limit))
        return [as_record(ClientKeyRecord, _keys, row) for row in rows]

    async def add_client_key(self, key: ClientKeyRecord) -> None:
        """Insert a pair; ``ConflictError`` when its id is taken, or the device has one of the kind already."""
        await self._run(_ADD_KEY, {**asdict(key), "kind": key.kind.value})

    async def deprecate_client_keys(
        self, tenant: str, device_id: str, at: datetime, *, kind: PairKind | None = None
    ) -> int:
        """Hand a device's pairs out no more, those of a kind or all; return how many were."""
        values: dict[str, Any] = {"of_tenant": tenant, "of_device": device_id, "at": at}
        if kind is None:
            return len(await self._run(_DEPRECATE, values))
        return len(await self._run(_DEPRECATE_KIND, {**values, "of_kind": kind.value}))

    async def note_client_key_uses(self, uses: Mapping[str, int], at: datetime) -> None:
        """Add to the use counts of pairs; one that is gone is passed over."""
        # By id, so that two who note the same do not wait for each other in a circle.
        rows = [{"of_id": key_id, "more": uses[key_id], "at": at} for key_id in sorted(uses)]
        await self._run_many(_NOTE_USES, rows)

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
        rows = await self._run(_TAKE_READY, {"of_kind": kind.value})
        return as_record(ReadyPairRecord, ready_key_pairs, rows[0]) if rows else None

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


def _number_of(tenant: str, user: str | None) -> int:
    """Return what a user is held by. Two users with one number wait for each other, and that is all."""
    name = b"keystead user\x00" + tenant.encode() + b"\x00" + (user or "").encode()
    return int.from_bytes(blake2b(name, digest_size=8).digest(), "big", signed=True)


def _is_owned(tenant: str, owner: str) -> ColumnElement[bool]:
    return and_(client_devices.c.tenant == tenant, client_devices.c.owner == owner)


def _is_device(table: Table, tenant: str, device_id: str) -> ColumnElement[bool]:
    return and_(table.c.tenant == tenant, table.c.device_id == device_id)
