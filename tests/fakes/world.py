"""A KMS, a clock and a store that several managers share, as the processes of one installation do."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from keystead.manager.manager import KeyManager
from keystead.manager.session import Session
from keystead.model import KeyRecord
from keystead.ports import KeyStore, KmsProvider, UnitOfWork
from keystead.stores.memory import MemoryKeyStore
from keystead.testing.fake_kms import FakeKMS
from tests.fakes.clock import FakeClock

KEY_ID = "billing"


@dataclass
class World:
    """Makes managers over one store in memory; without a background task, so that a test says when they poll."""

    clock: FakeClock = field(default_factory=FakeClock)
    kms: FakeKMS = field(init=False)
    store: KeyStore = field(init=False)

    def __post_init__(self) -> None:
        self.kms = FakeKMS(clock=self.clock)
        self.store = MemoryKeyStore(clock=self.clock)

    def manager(self, **options: Any) -> KeyManager:
        """Return a manager that is not initialised."""
        providers: Mapping[str, KmsProvider] = options.pop("providers", {"cloud": self.kms})
        given: dict[str, Any] = {
            "store": self.store,
            "clock": self.clock,
            "background": False,
            "default_key_id": KEY_ID,
        }
        return KeyManager(providers, **(given | options))

    @asynccontextmanager
    async def open(self, **options: Any) -> AsyncIterator[KeyManager]:
        """Return an initialised manager, closed at the end."""
        async with self.manager(**options) as km:
            yield km

    async def rows(self, keyring: str | None = None) -> list[KeyRecord]:
        """Return the data keys in the store, oldest version first."""
        async with self.store.reading() as work:
            rows = await work.keys(keyring=keyring)
        return sorted(rows, key=lambda row: (row.keyring, row.version))

    def calls(self) -> int:
        """Return how often the KMS was asked for anything."""
        return self.kms.calls.total()


class CountingStore:
    """A store that counts transactions and lets a test make them fail. Each ``failure`` is raised instead of one."""

    def __init__(self, store: KeyStore) -> None:
        self._store = store
        self.reads = 0
        self.writes = 0
        self.failure: Exception | None = None

    @property
    def is_durable(self) -> bool:
        """As the store inside."""
        return self._store.is_durable

    async def open(self) -> Any:
        """Open the store inside."""
        self._fail()
        return await self._store.open()

    @asynccontextmanager
    async def transaction(self, *, once: bool = False) -> AsyncIterator[UnitOfWork]:
        """Begin a writing transaction, counted."""
        self._fail()
        self.writes += 1
        async with self._store.transaction(once=once) as work:
            yield work

    @asynccontextmanager
    async def reading(self, *, once: bool = False) -> AsyncIterator[UnitOfWork]:
        """Begin a reading transaction, counted."""
        self._fail()
        self.reads += 1
        async with self._store.reading(once=once) as work:
            yield work

    async def aclose(self) -> None:
        """Close the store inside."""
        await self._store.aclose()

    def _fail(self) -> None:
        if self.failure is not None:
            raise self.failure


async def polled(*managers: KeyManager) -> None:
    """Let each manager poll the store once, as its background task would."""
    for km in managers:
        await (await km.session()).poll()


async def session_of(km: KeyManager) -> Session:
    """Return the session behind ``km``."""
    return await km.session()


async def backdate(world: World, key_id: int, by: timedelta) -> None:
    """Let an active version be ``by`` older than it is."""
    async with world.store.transaction() as work:
        row = await work.find_key(key_id)
        assert row is not None
        times = {name: getattr(row, name) for name in ("activated_at", "rotate_after", "expires_at")}
        epoch = await work.bump_epoch()
        changed = {name: moment - by for name, moment in times.items() if moment is not None}
        await work.change_key(key_id, row.state, published_epoch=epoch, **changed)


def raw(store: KeyStore) -> sqlite3.Connection:
    """Return the database of a store in memory, as its owner has it."""
    assert isinstance(store, MemoryKeyStore)
    return store._database.raw


def copied(store: KeyStore) -> bytes:
    """Return a backup of a store in memory."""
    return raw(store).serialize()


def put_back(store: KeyStore, backup: bytes) -> None:
    """Replace the contents of a store in memory by a backup."""
    raw(store).deserialize(backup)
