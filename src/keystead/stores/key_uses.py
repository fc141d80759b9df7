"""Declared data sources as rows."""

from __future__ import annotations

from sqlalchemy import delete, select

from keystead.ports import KeyUse
from keystead.stores.tables import key_uses
from keystead.stores.transaction import Statements


class KeyUseRows(Statements):
    """Declares, lists and drops data sources; ``keystead.ports.KeyUseRows``."""

    async def key_uses(self, keyring: str | None = None) -> list[KeyUse]:
        """Return the declared sources of a keyring, or of all."""
        query = select(key_uses).order_by(key_uses.c.keyring, key_uses.c.name)
        if keyring is not None:
            query = query.where(key_uses.c.keyring == keyring)
        return [KeyUse(**row) for row in await self._all(query)]

    async def declare_use(self, use: KeyUse) -> None:
        """Declare or change a source; the keyring must exist."""
        insert = self._insert(key_uses).values(keyring=use.keyring, name=use.name, locator=use.locator)
        await self._write(
            insert.on_conflict_do_update(index_elements=["keyring", "name"], set_={"locator": insert.excluded.locator})
        )

    async def drop_use(self, keyring: str, name: str) -> bool:
        """Remove a declaration; False when absent."""
        return bool(await self._count(delete(key_uses).where(key_uses.c.keyring == keyring, key_uses.c.name == name)))
