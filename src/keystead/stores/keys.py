"""Keyrings and data keys as rows."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from functools import cached_property
from typing import Any, Final

from sqlalchemy import BigInteger, ColumnElement, RowMapping, bindparam, case, func, literal_column, select, update

from keystead.errors import ConflictError, InvalidInputError, KeyNotFoundError, StorageOperationError
from keystead.model import DataKeyState, KeyRecord, KeyringRecord, StoreState
from keystead.ports import KeyChanges
from keystead.stores.prepared import Prepared, Row
from keystead.stores.records import as_record, damaged
from keystead.stores.tables import data_keys, keyrings, store_state
from keystead.stores.transaction import Statements

MAX_KEY_ID: Final = 2**63 - 1

CHANGEABLE: Final = frozenset(
    {
        "state",
        "wrapped_key",
        "wrapped_by",
        "kek_provider",
        "kek_key_id",
        "kek_version",
        "kek_algorithm",
        "activated_at",
        "rotate_after",
        "expires_at",
        "destroy_after",
        "published_epoch",
    }
)

_STORE_ID: Final = re.compile("[0-9a-f]{32}")
_COLUMNS: Final[list[ColumnElement[Any]]] = [store_state.c[name] for name in StoreState.__slots__]
_STATE: Final = Prepared(select(*_COLUMNS))
_LOCK_STATE: Final = Prepared(select(*_COLUMNS).with_for_update())
_HOLD_KEYS: Final = Prepared(select(*_COLUMNS).with_for_update(read=True))
_KEYRING: Final = select(keyrings).where(keyrings.c.name == bindparam("of_name"))
_FIND_KEYRING: Final = Prepared(_KEYRING)
_LOCK_KEYRING: Final = Prepared(_KEYRING.with_for_update(key_share=True))
_FIND_KEY: Final = Prepared(select(data_keys).where(data_keys.c.id == bindparam("of_id")))
_FIND_ACTIVE: Final = Prepared(
    select(data_keys).where(
        data_keys.c.keyring == bindparam("of_keyring"),
        data_keys.c.state == literal_column(f"'{DataKeyState.ACTIVE.value}'"),
    )
)
_SQLITE_NOW: Final = "CAST(round((julianday('now') - 2440587.5) * 86400000) AS INTEGER)"
_POSTGRESQL_NOW: Final = "CAST(floor(extract(epoch FROM clock_timestamp()) * 1000) AS bigint)"


def _clock(dialect: str) -> ColumnElement[int]:
    return literal_column(_POSTGRESQL_NOW if dialect == "postgresql" else _SQLITE_NOW, BigInteger)


def clock_or_given(dialect: str) -> ColumnElement[int]:
    """Return the time in a statement whose parameter ``now`` has it where it is not the database's that counts."""
    return func.coalesce(bindparam("now", type_=BigInteger), _clock(dialect))


_NOW: Final = Prepared(lambda dialect: select(_clock(dialect).label("now")))


class KeyReadRows(Statements):
    """Reads keyrings and data keys; ``keystead.ports.KeyReads``."""

    async def state(self, *, lock: bool = False) -> StoreState:
        """Return the store's id, epoch and restored mark; ``lock`` holds them until the transaction ends."""
        return await self._state(_LOCK_STATE if lock else _STATE, is_held=lock)

    async def hold_keys(self) -> StoreState:
        """Wait for a transaction that is changing keys, and let none change any before this one ends."""
        return await self._state(_HOLD_KEYS, is_held=True)

    async def _state(self, query: Prepared, *, is_held: bool) -> StoreState:
        rows = await self._run(query, {}, writes=is_held)
        if not rows:
            raise StorageOperationError("the store has lost its state row: import an export or restore a backup")
        row = rows[0]
        state = as_record(StoreState, store_state, {**row, "audited": bool(row["audited"])})
        # It names the file of the state journal, too.
        if _STORE_ID.fullmatch(state.store_id) is None:
            raise damaged(store_state, row, "store_id")
        return state

    async def now_ms(self) -> int:
        """Return the database's clock, milliseconds since 1970."""
        [row] = await self._run(_NOW, {}, writes=False)
        return int(row["now"])

    def _given_ms(self) -> int | None:
        """Return the time where it is not the database's that counts."""
        return None

    def _now(self) -> ColumnElement[int]:
        """Return the same for a statement that needs it, which saves one that asks."""
        return _clock(self._connection.dialect.name)

    async def find_keyring(self, name: str, *, lock: bool = False) -> KeyringRecord | None:
        """Return a keyring; ``lock`` holds its row until the transaction ends."""
        rows = await self._run(_LOCK_KEYRING if lock else _FIND_KEYRING, {"of_name": name}, writes=lock)
        return _keyring(rows[0]) if rows else None

    async def keyrings(self, *, after: str = "", limit: int = 1000) -> list[KeyringRecord]:
        """Return a page of keyrings by name."""
        query = select(keyrings).where(keyrings.c.name > after).order_by(keyrings.c.name).limit(limit)
        return [_keyring(row) for row in await self._all(query)]

    async def keyrings_with_keys(self, names: Collection[str]) -> list[tuple[KeyringRecord, list[KeyRecord]]]:
        """Return those of these keyrings that there are, by name, each with all of its data keys by id."""
        found = [_keyring(row) for row in await self._all_of(select(keyrings), keyrings.c.name, names)]
        keys: dict[str, list[KeyRecord]] = {keyring.name: [] for keyring in found}
        for row in await self._all_of(select(data_keys).order_by(data_keys.c.id), data_keys.c.keyring, keys):
            keys[row["keyring"]].append(key_of(row))
        return [(keyring, keys[keyring.name]) for keyring in sorted(found, key=lambda each: each.name)]

    async def find_key(self, key_id: int) -> KeyRecord | None:
        """Return a data key by id, in any state."""
        if not 0 < key_id <= MAX_KEY_ID:
            return None
        rows = await self._run(_FIND_KEY, {"of_id": key_id}, writes=False)
        return key_of(rows[0]) if rows else None

    async def find_keys(self, key_ids: Collection[int]) -> list[KeyRecord]:
        """Return those of these data keys that there are, in any state, by id."""
        possible = [key_id for key_id in key_ids if 0 < key_id <= MAX_KEY_ID]
        rows = await self._all_of(select(data_keys), data_keys.c.id, possible)
        return sorted(map(key_of, rows), key=lambda key: key.id)

    async def find_legacy_key(self, legacy_version: str) -> KeyRecord | None:
        """Return the data key imported under a legacy version text."""
        row = await self._first(select(data_keys).where(data_keys.c.legacy_version == legacy_version))
        return None if row is None else key_of(row)

    async def find_active(self, keyring: str) -> KeyRecord | None:
        """Return the keyring's active version."""
        rows = await self._run(_FIND_ACTIVE, {"of_keyring": keyring}, writes=False)
        return key_of(rows[0]) if rows else None

    async def keys(
        self,
        *,
        keyring: str | None = None,
        states: Collection[DataKeyState] | None = None,
        wrapped_by: int | None = None,
        wrapped_by_not: Collection[int] | None = None,
        published_after: int | None = None,
        due_before: datetime | None = None,
        after_id: int = 0,
        limit: int = 1000,
    ) -> list[KeyRecord]:
        """Return a page of data keys by id, filtered.

        ``wrapped_by`` keeps the keys a WRAP key wraps; ``wrapped_by_not`` those wrapped by a WRAP key outside the
        given ids. Neither gives WRAP rows, or destroyed ones, which nothing wraps. ``due_before`` keeps those whose
        ``rotate_after`` is not later.
        """
        query = select(data_keys).where(data_keys.c.id > after_id)
        if keyring is not None:
            query = query.where(data_keys.c.keyring == keyring)
        if states is not None:
            query = query.where(data_keys.c.state.in_([state.value for state in states]))
        if wrapped_by is not None:
            query = query.where(data_keys.c.wrapped_by == wrapped_by, data_keys.c.wrapped_key.is_not(None))
        if wrapped_by_not is not None:
            query = query.where(data_keys.c.wrapped_by.is_not(None), data_keys.c.wrapped_key.is_not(None))
            query = query.where(data_keys.c.wrapped_by.not_in(list(wrapped_by_not)))
        if published_after is not None:
            query = query.where(data_keys.c.published_epoch > published_after)
        if due_before is not None:
            query = query.where(data_keys.c.rotate_after <= due_before)
        return [key_of(row) for row in await self._all(query.order_by(data_keys.c.id).limit(limit))]

    async def count_keys(self, keyring: str) -> Mapping[DataKeyState, int]:
        """Return how many keys of the keyring are in each state; absent states are not listed."""
        query = (
            select(data_keys.c.state, func.count().label("count"))
            .where(data_keys.c.keyring == keyring)
            .group_by(data_keys.c.state)
        )
        return {DataKeyState(row["state"]): row["count"] for row in await self._all(query)}


class KeyWriteRows(KeyReadRows):
    """Changes keyrings and data keys; ``keystead.ports.KeyWrites``.

    The epoch's row stays locked from its first bump, or ``state(lock=True)``, to the end of the transaction. Lock a
    keyring before that, never after, or two transactions may wait for each other; the database then ends one with
    ``ConflictError``.
    """

    @cached_property
    def changes(self) -> KeyChanges:
        """What this transaction has changed so far."""
        return KeyChanges()

    async def bump_epoch(self) -> int:
        """Count the epoch up (once a transaction) and return it."""
        if self.changes.epoch is None:
            return await self._set_epoch(store_state.c.epoch + 1)
        return self.changes.epoch

    async def raise_epoch(self, at_least: int) -> int:
        """Set the epoch to at least ``at_least`` and return it."""
        epoch = await self.bump_epoch()
        return epoch if epoch >= at_least else await self._set_epoch(at_least)

    async def set_restored(self, restored: bool) -> None:
        """Mark the store restored, or recovered."""
        await self.bump_epoch()
        await self._write(update(store_state).values(restored=restored))

    async def adopt(self, store_id: str, epoch: int) -> None:
        """Take over the identity of an exported store: its id and epoch, marked restored. For an empty store only.

        Raises:
            InvalidInputError: the id is not 32 lower-case hexadecimal characters.
            ConflictError: this store holds keyrings of its own.
        """
        if _STORE_ID.fullmatch(store_id) is None:
            raise InvalidInputError("a store id is 32 lower-case hexadecimal characters")
        await self.raise_epoch(epoch)
        if await self._first(select(keyrings.c.name).limit(1)) is not None:
            raise ConflictError("the store holds keys of its own; import into an empty store")
        await self._write(update(store_state).values(store_id=store_id, restored=True))

    async def add_keyring(self, keyring: KeyringRecord) -> bool:
        """Insert a keyring; False when the name exists already."""
        insert = self._insert(keyrings).values(_keyring_row(keyring)).on_conflict_do_nothing(index_elements=["name"])
        if await self._write(insert.returning(keyrings.c.name)) is None:
            return False
        await self.bump_epoch()
        return True

    async def take_version(self, keyring: str, *, skip: int = 0) -> int:
        """Return the next version number, after leaving out ``skip``; it is never given again.

        Raises:
            KeyNotFoundError: no such keyring.
        """
        if skip < 0:
            raise InvalidInputError("skip is a number of versions to leave out, zero or more")
        take = (
            update(keyrings)
            .where(keyrings.c.name == keyring)
            .values(next_version=keyrings.c.next_version + 1 + skip)
            .returning(keyrings.c.next_version)
        )
        row = await self._write(take)
        if row is None:
            raise KeyNotFoundError(f"no keyring is named {keyring!r}")
        return int(row["next_version"]) - 1

    async def add_key(self, key: KeyRecord) -> None:
        """Insert a data key. A ``published_epoch`` of 0 becomes this transaction's epoch.

        Raises:
            ConflictError: its id, version, legacy version or the keyring's active state is taken.
        """
        epoch = await self.bump_epoch()
        published = replace(key, published_epoch=key.published_epoch or epoch)
        await self._write(self._insert(data_keys).values(_key_row(published)))
        self.changes.keys[key.id] = published

    async def add_keyrings(self, made: Sequence[tuple[KeyringRecord, KeyRecord]]) -> None:
        """Insert new keyrings, each with its first key; ``ConflictError`` when a name or an id is taken."""
        epoch = await self.bump_epoch()
        published = [replace(key, published_epoch=key.published_epoch or epoch) for _, key in made]
        await self._write_many(keyrings, [_keyring_row(keyring) for keyring, _ in made])
        await self._write_many(data_keys, [_key_row(key) for key in published])
        self.changes.keys |= {key.id: key for key in published}

    async def change_key(self, key_id: int, expected: DataKeyState, **changes: Any) -> KeyRecord:
        """Change columns of a key that is in state ``expected`` and return the row. Destroying drops the wrapped key.

        Raises:
            InvalidInputError: a column that never changes, or a wrapped key where the state forbids or needs one.
            KeyNotFoundError: no such key.
            ConflictError: the key is in another state, or another key became active first.
        """
        values = _checked_changes(expected, changes)
        await self.bump_epoch()
        change = (
            update(data_keys)
            .where(data_keys.c.id == key_id, data_keys.c.state == expected.value)
            .values(values)
            .returning(data_keys)
        )
        row = await self._write(change)
        if row is not None:
            self.changes.keys[key_id] = changed = key_of(row)
            return changed
        found = await self.find_key(key_id)
        if found is None:
            raise KeyNotFoundError(f"no data key has the id {key_id}")
        raise ConflictError(f"data key {key_id} is {found.state}, no longer {expected}; reread and decide again")

    async def add_uses(self, key_id: int, messages: int, size_bytes: int) -> None:
        """Add to the use counts of a key, without touching the epoch. Counts of a key that is gone are dropped."""
        add = (
            update(data_keys)
            .where(data_keys.c.id == key_id)
            .values(messages=data_keys.c.messages + messages, bytes=data_keys.c.bytes + size_bytes)
        )
        await self._write(add)

    async def _raise_usable_from(self, revision: str) -> None:
        """Keep releases from working on the store that know no such revision."""
        known = store_state.c.usable_from
        await self._write(update(store_state).values(usable_from=case((known < revision, revision), else_=known)))

    async def _set_epoch(self, value: Any) -> int:
        change = update(store_state).values(epoch=value).returning(store_state.c.epoch, store_state.c.audited)
        row = await self._write(change)
        if row is None:
            raise StorageOperationError("the store has lost its state row: import an export or restore a backup")
        epoch = self.changes.epoch = int(row["epoch"])
        self.changes.is_audited = bool(row["audited"])
        return epoch


def _keyring_row(keyring: KeyringRecord) -> dict[str, Any]:
    row = {column.name: getattr(keyring, column.name) for column in keyrings.columns}
    return row | {"purpose": keyring.purpose.value}


def _key_row(key: KeyRecord) -> dict[str, Any]:
    row = {column.name: getattr(key, column.name) for column in data_keys.columns}
    return row | {"purpose": key.purpose.value, "state": key.state.value, "context": dict(key.context)}


def _checked_changes(expected: DataKeyState, changes: Mapping[str, Any]) -> dict[str, Any]:
    fixed = sorted(changes.keys() - CHANGEABLE)
    if fixed:
        raise InvalidInputError(f"these columns of a data key never change: {', '.join(fixed)}")
    if not changes:
        raise InvalidInputError("name at least one column to change")
    values = dict(changes)
    state = DataKeyState(values.get("state", expected))
    if "state" in values:
        values["state"] = state.value
    if expected is DataKeyState.DESTROYED:
        raise InvalidInputError("a destroyed key never changes")
    if state is DataKeyState.DESTROYED:
        if values.get("wrapped_key") is not None:
            raise InvalidInputError("a destroyed key keeps no wrapped key")
        values["wrapped_key"] = None
    elif "wrapped_key" in values and values["wrapped_key"] is None:
        raise InvalidInputError("only a destroyed key has no wrapped key")
    return values


def _keyring(row: RowMapping | Row) -> KeyringRecord:
    return as_record(KeyringRecord, keyrings, row)


def key_of(row: RowMapping | Row) -> KeyRecord:
    """Return a row of a data key as its record."""
    return as_record(KeyRecord, data_keys, row)
