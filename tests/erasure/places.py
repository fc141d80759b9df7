"""A store and a log of erasures outside it, and what befalls both: put back, cut off, gone."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from keystead.manager.manager import KeyManager
from keystead.providers.local.provider import LocalKMSConfig, LocalKMSProvider
from keystead.stores.schema import migrate
from tests.audit.places import KEK
from tests.audit.places import Place as Database


@dataclass(frozen=True)
class Place:
    """One store, by its URL, and the file of its log."""

    database: Database
    log: Path

    @classmethod
    def of(cls, request: pytest.FixtureRequest, folder: Path) -> Place:
        """Return an empty store of the kind that a fixture's parameter names."""
        url = f"sqlite:///{folder}/keys.db"
        if request.param == "postgresql":
            url = request.getfixturevalue("postgres_url")
        migrate(url)
        return cls(Database(url), folder / "outside" / "erasures.log")

    def manager(self, **options: Any) -> KeyManager:
        """Return a manager that looks at the store and the log only when it is told to."""
        given: dict[str, Any] = {"background": False, "store": self.database.url, "initialization_timeout": 60}
        provider = LocalKMSProvider(LocalKMSConfig(master_key=KEK))
        given |= {"erasures": self.log, "state_dir": self.log.with_name("state")}
        return KeyManager({"local": provider}, **(given | options))

    @asynccontextmanager
    async def open(self, **options: Any) -> AsyncIterator[KeyManager]:
        """Give an initialised manager."""
        async with self.manager(**options) as km:
            yield km

    def lines(self) -> list[bytes]:
        """Return the lines of the log."""
        return self.log.read_bytes().split(b"\n")[:-1]

    def backup(self) -> dict[str, list[tuple[Any, ...]]]:
        """Return a copy of the store's tables of keys and subjects, with the mark."""
        tables = ("store_state", "keyrings", "data_keys", "subjects", "erasure_state")
        return {table: self.database.execute(f"SELECT * FROM {table}") for table in tables}

    def restore(self, backup: dict[str, list[tuple[Any, ...]]]) -> None:
        """Put the tables back as they were, past the rules that keep keys."""
        database = self.database
        if database.is_sqlite:
            rules = database.execute("SELECT name, sql FROM sqlite_master WHERE type = 'trigger'")
            for name, _ in rules:
                database.execute(f"DROP TRIGGER {name}")
        else:
            for table in ("keyrings", "data_keys"):
                database.execute(f"ALTER TABLE {table} DISABLE TRIGGER USER")
        for table in ("erasure_state", "subjects", "data_keys", "keyrings", "store_state"):
            database.execute(f"DELETE FROM {table}")
        for table, rows in backup.items():
            for row in rows:
                database.execute(f"INSERT INTO {table} VALUES ({', '.join('?' * len(row))})", *row)
        if database.is_sqlite:
            for _, sql in rules:
                database.execute(sql)
        else:
            for table in ("keyrings", "data_keys"):
                database.execute(f"ALTER TABLE {table} ENABLE TRIGGER USER")

    def copy_log(self, name: str) -> Path:
        """Return a copy of the log beside it."""
        return Path(shutil.copy(self.log, self.log.with_name(name)))
