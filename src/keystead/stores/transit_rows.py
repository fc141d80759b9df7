"""Transit keys as rows."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any, Final

from sqlalchemy import bindparam, delete, select, update

from keystead.ports import TransitKeyRecord
from keystead.stores.keys import KeyWriteRows
from keystead.stores.prepared import Prepared
from keystead.stores.records import as_record
from keystead.stores.tables import transit_keys, transit_settings

FIRST_REVISION: Final = "0010"
"""An older release would rotate Transit keys by the store's policy, and export the store without them."""
_KEY: Final = select(transit_keys).where(
    transit_keys.c.tenant == bindparam("of_tenant"), transit_keys.c.name == bindparam("of_name")
)
_FIND: Final = Prepared(_KEY)
_LOCK: Final = Prepared(_KEY.with_for_update())
_KEPT: Final = frozenset({"keyring", "tenant", "name", "type", "created_at", "derived", "convergent", "key_size"})


class TransitRows(KeyWriteRows):
    """Transit keys; ``keystead.ports.TransitRows``."""

    async def find_transit_key(self, tenant: str, name: str, *, lock: bool = False) -> TransitKeyRecord | None:
        """Return a key; ``lock`` holds its row until the transaction ends."""
        rows = await self._run(_LOCK if lock else _FIND, {"of_tenant": tenant, "of_name": name}, writes=False)
        return as_record(TransitKeyRecord, transit_keys, rows[0]) if rows else None

    async def add_transit_key(self, record: TransitKeyRecord) -> None:
        """Insert a key whose keyring is there; ``ConflictError`` where its tenant has one of that name."""
        await self._write(self._insert(transit_keys).values(_values(record)))
        await self._raise_usable_from(FIRST_REVISION)

    async def put_transit_key(self, record: TransitKeyRecord) -> None:
        """Change what may change of a key."""
        changed = {name: value for name, value in _values(record).items() if name not in _KEPT}
        await self._write(update(transit_keys).where(transit_keys.c.keyring == record.keyring).values(changed))

    async def drop_transit_key(self, keyring: str) -> bool:
        """Remove a key, by its keyring; False when absent."""
        return bool(await self._count(delete(transit_keys).where(transit_keys.c.keyring == keyring)))

    async def transit_keys(self, tenant: str, *, after: str = "", limit: int = 1000) -> list[TransitKeyRecord]:
        """Return a page of a tenant's keys by name."""
        of_tenant = select(transit_keys).where(transit_keys.c.tenant == tenant, transit_keys.c.name > after)
        rows = await self._all(of_tenant.order_by(transit_keys.c.name).limit(limit))
        return [as_record(TransitKeyRecord, transit_keys, row) for row in rows]

    async def is_upsert_disabled(self, tenant: str) -> bool:
        """Return whether encrypting under a name that is no key's makes no key, for a tenant."""
        row = await self._first(select(transit_settings).where(transit_settings.c.tenant == tenant))
        return row is not None and bool(row["disable_upsert"])

    async def disable_upsert(self, tenant: str, disabled: bool) -> None:
        """Set it."""
        insert = self._insert(transit_settings).values(tenant=tenant, disable_upsert=disabled)
        await self._write(insert.on_conflict_do_update(index_elements=["tenant"], set_={"disable_upsert": disabled}))

    async def tenants_without_upsert(self) -> list[str]:
        """Return every tenant for whom it makes none."""
        chosen = select(transit_settings.c.tenant).where(transit_settings.c.disable_upsert)
        return [str(row["tenant"]) for row in await self._all(chosen.order_by(transit_settings.c.tenant))]

    async def all_transit_keys(
        self, *, after: str = "", limit: int = 1000, rotating: bool = False
    ) -> list[TransitKeyRecord]:
        """Return a page of every tenant's keys by keyring, or of those that are rotated by their age."""
        query = select(transit_keys).where(transit_keys.c.keyring > after)
        if rotating:
            query = query.where(transit_keys.c.auto_rotate_s > 0)
        rows = await self._all(query.order_by(transit_keys.c.keyring).limit(limit))
        return [as_record(TransitKeyRecord, transit_keys, row) for row in rows]


def _values(record: TransitKeyRecord) -> dict[str, Any]:
    return {**asdict(record), "type": record.type.value}
