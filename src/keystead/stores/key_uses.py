"""Declared data sources as rows, each of one keyring or of every keyring that a pattern names."""

from __future__ import annotations

from sqlalchemy import delete, select, text

from keystead.errors import KeyNotFoundError
from keystead.model.patterns import covers, is_pattern
from keystead.ports import KeyUse
from keystead.stores.records import as_record
from keystead.stores.tables import MAY_BE_PATTERN, key_uses, keyrings, store_state
from keystead.stores.transaction import Statements


class KeyUseRows(Statements):
    """Declares, lists and drops data sources; ``keystead.ports.KeyUseRows``."""

    async def key_uses(self, keyring: str | None = None) -> list[KeyUse]:
        """Return the declared sources of a keyring, those of a pattern that names it included, or all.

        Where two patterns meet in its name, both are looked through: a scan looks for the id of a data key, so that one
        too many finds nothing, and one too few would lose data.
        """
        query = select(key_uses)
        if keyring is None:
            by_name = query.order_by(key_uses.c.keyring, key_uses.c.name)
            return [as_record(KeyUse, key_uses, row) for row in await self._all(by_name)]
        may_be_pattern = text(MAY_BE_PATTERN[self._connection.dialect.name])
        rows = [
            *await self._all(query.where(key_uses.c.keyring == keyring)),
            *await self._all(query.where(may_be_pattern, key_uses.c.keyring != keyring)),
        ]
        uses = [as_record(KeyUse, key_uses, row) for row in rows]
        return sorted((use for use in uses if covers(use.keyring, keyring)), key=lambda use: (use.keyring, use.name))

    async def declare_use(self, use: KeyUse) -> None:
        """Declare or change a source; its keyring is a pattern, or exists.

        Waits for a transaction that is changing keys: it may be a destruction that has looked at the sources already.

        Raises:
            KeyNotFoundError: no such keyring.
        """
        await self._first(select(store_state.c.epoch).with_for_update(read=True))
        if not is_pattern(use.keyring):
            named = select(keyrings.c.name).where(keyrings.c.name == use.keyring)
            if await self._first(named) is None:
                raise KeyNotFoundError(f"no keyring {use.keyring!r} in this store")
        insert = self._insert(key_uses).values(keyring=use.keyring, name=use.name, locator=use.locator)
        await self._write(
            insert.on_conflict_do_update(index_elements=["keyring", "name"], set_={"locator": insert.excluded.locator})
        )

    async def drop_use(self, keyring: str, name: str) -> bool:
        """Remove a declaration; False when absent."""
        return bool(await self._count(delete(key_uses).where(key_uses.c.keyring == keyring, key_uses.c.name == name)))
