"""A store with an audit trail: managers over it, and its tables past them, as somebody with the database has them."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest

from keystead.ledger.audit.options import AuditOptions
from keystead.ledger.audit.verifying import AuditReport
from keystead.manager.auditing import Auditing
from keystead.manager.manager import KeyManager
from keystead.ports import AuditEntryRow
from keystead.providers.local.provider import LocalKMSConfig, LocalKMSProvider
from keystead.stores.schema import migrate

KEK = bytes(range(32))
OTHER_KEK = bytes(range(32, 64))


def an_empty_place(request: pytest.FixtureRequest, folder: Path) -> Place:
    """Return an empty store with its schema, of the kind that a fixture's parameter names."""
    url = f"sqlite:///{folder}/keys.db"
    if request.param == "postgresql":
        url = request.getfixturevalue("postgres_url")
    migrate(url)
    return Place(url)


@dataclass(frozen=True)
class Place:
    """One store, by its URL."""

    url: str

    @property
    def is_sqlite(self) -> bool:
        return self.url.startswith("sqlite")

    def manager(self, **options: Any) -> KeyManager:
        """Return a manager that seals only when it is told to."""
        given: dict[str, Any] = {"audit": True, "background": False, "store": self.url, "initialization_timeout": 60}
        providers = options.pop("providers", None) or {"local": LocalKMSProvider(LocalKMSConfig(master_key=KEK))}
        return KeyManager(providers, **(given | options))

    @asynccontextmanager
    async def open(self, **options: Any) -> AsyncIterator[KeyManager]:
        """Give an initialised manager."""
        async with self.manager(**options) as km:
            yield km

    def execute(self, statement: str, *given: object) -> list[tuple[Any, ...]]:
        """Run a statement as the owner of the database; ``?`` stands for a value."""
        if self.is_sqlite:
            with sqlite3.connect(self.url.removeprefix("sqlite:///"), isolation_level=None, timeout=30) as raw:
                rows = raw.execute(statement, given).fetchall()
            raw.close()
            return rows
        with psycopg.connect(self.url, autocommit=True) as connection:
            done = connection.execute(statement.replace("?", "%s").encode(), given)
            return done.fetchall() if done.description else []

    def insert(self, *row: object) -> None:
        """Insert an entry that waits, as whoever has the database can: id, session, bytes and code."""
        self.execute("INSERT INTO audit_entries VALUES (?, ?, ?, ?)", *row)

    def insert_entry(self, row: AuditEntryRow) -> None:
        """Insert an entry as a transaction of somebody else's does."""
        self.insert(row.id, row.session, row.entry, row.code)

    def tamper(self, *statements: str) -> None:
        """Change the trail as the owner of the tables can, past the rules that stand in their way."""
        if self.is_sqlite:
            self.execute("DROP TRIGGER IF EXISTS audit_log_fixed")
        else:
            self.execute("ALTER TABLE audit_log DISABLE TRIGGER audit_log_fixed")
        for statement in statements:
            self.execute(statement)

    def kept(self) -> dict[str, list[tuple[Any, ...]]]:
        """Return a copy of the trail's tables."""
        tables = ("audit_entries", "audit_sessions", "audit_log", "audit_state")
        return {table: self.execute(f"SELECT * FROM {table}") for table in tables}

    def put_back(self, kept: Mapping[str, Sequence[tuple[Any, ...]]]) -> None:
        """Replace the trail's tables by a copy, of this store or of another."""
        for table, rows in kept.items():
            self.execute(f"DELETE FROM {table}")
            for row in rows:
                marks = ", ".join("?" for _ in row)
                self.execute(f"INSERT INTO {table} VALUES ({marks})", *row)

    def lines(self) -> list[bytes]:
        """Return the lines of the log."""
        return [bytes(row[0]) for row in self.execute("SELECT line FROM audit_log ORDER BY seq")]

    def waiting(self) -> int:
        """Return how many entries wait."""
        return int(self.execute("SELECT count(*) FROM audit_entries")[0][0])


def auditing_of(km: KeyManager) -> Auditing:
    """Return a manager's part in the trail."""
    found = km.require_session().auditing
    assert found is not None
    return found


async def seal(km: KeyManager) -> int:
    """Seal everything that waits, and return how many entries that were."""
    taken = 0
    while step := await auditing_of(km).step(is_urgent=True):
        taken += step
    return taken


async def checked(place: Place, **how: Any) -> AuditReport:
    """Return what a reader finds who comes later, and takes no part."""
    async with place.open() as km:
        return await km.audit.verify(**how)


def kinds(report: AuditReport) -> set[str]:
    """Return what kinds of findings there are."""
    return {error.error_type.value for error in report.log.errors}


def options(**given: Any) -> AuditOptions:
    """Return options with checkpoints far apart."""
    return AuditOptions(**({"checkpoint_s": 3600.0} | given))
